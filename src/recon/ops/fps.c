/* Exact farthest point sampling of a batch of clouds; see sampling.py for the definition. */
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
#define BROADCAST(value) ((floats){0} + (value))
#define LOAD(address) (*(floats *)(address))
#define SELECT(mask, a, b) ((floats)(((mask) & (ints)(a)) | (~(mask) & (ints)(b))))

/* points: (batch, n, 3); order: (n), a permutation that starts at point 0; among equally far points
   the earliest in it wins. Points of squared norm up to min_squared_norm are never picked; a
   negative value skips none. picked: (batch, count). Returns 0, or 1 if out of memory. */
int recon_fps(const float *points, const int64_t *order, float min_squared_norm, int64_t batch,
              int64_t n, int64_t count, int64_t *picked)
{
    const int64_t blocks = (n + LANES - 1) / LANES, padded = blocks * LANES;
    float *buffer = NULL;
    if (posix_memalign((void **)&buffer, sizeof(floats), (size_t)padded * 4 * sizeof(float)))
        return 1;
    float *x = buffer, *y = x + padded, *z = y + padded, *nearest = z + padded;
    for (int64_t b = 0; b < batch; b++) {
        const float *cloud = points + 3 * n * b;
        for (int64_t k = 0; k < n; k++) {
            const float *point = cloud + 3 * order[k];
            x[k] = point[0];
            y[k] = point[1];
            z[k] = point[2];
            float norm = x[k] * x[k];
            norm = norm + y[k] * y[k];
            norm = norm + z[k] * z[k];
            nearest[k] = norm <= min_squared_norm ? -1.0f : INFINITY;
        }
        for (int64_t k = n; k < padded; k++) {
            x[k] = y[k] = z[k] = 0.0f;
            nearest[k] = -2.0f; /* padding is never the farthest */
        }
        int64_t last = 0;
        picked[b * count] = order[0];
        for (int64_t i = 1; i < count; i++) {
            const floats lx = BROADCAST(x[last]), ly = BROADCAST(y[last]), lz = BROADCAST(z[last]);
            floats best = BROADCAST(-3.0f);
            ints best_block = {0};
            for (int32_t block = 0; block < blocks; block++) {
                const int64_t k = (int64_t)block * LANES;
                const floats dx = LOAD(x + k) - lx, dy = LOAD(y + k) - ly, dz = LOAD(z + k) - lz;
                const floats distance = dx * dx + dy * dy + dz * dz, previous = LOAD(nearest + k);
                const floats updated = SELECT(distance < previous, distance, previous);
                LOAD(nearest + k) = updated;
                const ints farther = updated > best;
                best_block = (farther & block) | (~farther & best_block);
                best = SELECT(farther, updated, best);
            }
            float farthest = -4.0f;
            int64_t index = padded;
            for (int j = 0; j < LANES; j++) {
                const int64_t k = (int64_t)best_block[j] * LANES + j;
                if (best[j] > farthest || (best[j] == farthest && k < index)) {
                    farthest = best[j];
                    index = k;
                }
            }
            last = index;
            picked[b * count + i] = order[index];
        }
    }
    free(buffer);
    return 0;
}
