/* Farthest point sampling of one batch of clouds, exact; see sampling.py for the definition. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float floats __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), may_alias));
#define ALL(value) ((floats){0} + (value))
#define LOAD(at) (*(floats *)(at))
#define CHOOSE(mask, a, b) ((floats)(((mask) & (ints)(a)) | (~(mask) & (ints)(b))))

/* points: (batch, n, 3); order: (n), of equally far points the first in it wins, and point 0 is its
   first. Points of squared norm up to skipped are never picked; below 0 none is skipped.
   picked: (batch, count). Returns 0, or 1 without memory. */
int recon_fps(const float *points, const int64_t *order, float skipped, int64_t batch, int64_t n,
              int64_t count, int64_t *picked)
{
    const int64_t blocks = (n + LANES - 1) / LANES, padded = blocks * LANES;
    float *room = NULL;
    if (posix_memalign((void **)&room, sizeof(floats), (size_t)padded * 4 * sizeof(float))) return 1;
    float *x = room, *y = x + padded, *z = y + padded, *nearest = z + padded;
    for (int64_t b = 0; b < batch; b++) {
        const float *from = points + 3 * n * b;
        for (int64_t k = 0; k < n; k++) {
            const float *point = from + 3 * order[k];
            x[k] = point[0];
            y[k] = point[1];
            z[k] = point[2];
            float norm = x[k] * x[k];
            norm = norm + y[k] * y[k];
            norm = norm + z[k] * z[k];
            nearest[k] = norm <= skipped ? -1.0f : INFINITY;
        }
        for (int64_t k = n; k < padded; k++) {
            x[k] = y[k] = z[k] = 0.0f;
            nearest[k] = -2.0f; /* never the farthest */
        }
        int64_t last = 0;
        picked[b * count] = order[0];
        for (int64_t i = 1; i < count; i++) {
            const floats lx = ALL(x[last]), ly = ALL(y[last]), lz = ALL(z[last]);
            floats best = ALL(-3.0f);
            ints where = {0};
            for (int32_t block = 0; block < blocks; block++) {
                const int64_t k = (int64_t)block * LANES;
                const floats dx = LOAD(x + k) - lx, dy = LOAD(y + k) - ly, dz = LOAD(z + k) - lz;
                const floats far = dx * dx + dy * dy + dz * dz, old = LOAD(nearest + k);
                const floats now = CHOOSE(far < old, far, old);
                LOAD(nearest + k) = now;
                const ints farther = now > best;
                where = (farther & block) | (~farther & where);
                best = CHOOSE(farther, now, best);
            }
            float far = -4.0f;
            int64_t index = padded;
            for (int j = 0; j < LANES; j++) {
                const int64_t k = (int64_t)where[j] * LANES + j;
                if (best[j] > far || (best[j] == far && k < index)) { far = best[j]; index = k; }
            }
            last = index;
            picked[b * count + i] = order[index];
        }
    }
    free(room);
    return 0;
}
