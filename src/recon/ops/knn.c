/* Nearest neighbours in one batch of clouds, exact; see neighbors.py for the definition. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bits of floats of at least 0 are in the order of the floats: search them by halves for the smallest
   that at least k of n do not exceed. */
static int32_t kth(const int32_t *bits, int64_t n, int64_t k)
{
    int32_t low = 0, high = INT32_MAX;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        int32_t count = 0;
        for (int64_t i = 0; i < n; i++) count += bits[i] <= middle;
        if (count < k) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* queries: (batch, m, 3); points: (batch, n, 3), k of them at least. picked: (batch, m, k), in no
   particular order; of equally far points the first are taken. Returns 0, or 1 without memory. */
int recon_knn(const float *queries, const float *points, int64_t batch, int64_t m, int64_t n,
              int64_t k, int64_t *picked)
{
    float *room = malloc((size_t)(5 * n) * sizeof(float));
    if (!room) return 1;
    float *restrict x = room, *restrict y = x + n, *restrict z = y + n, *restrict far = z + n;
    int32_t *bits = (int32_t *)(far + n);
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < n; i++) {
            const float *point = points + 3 * (b * n + i);
            x[i] = point[0];
            y[i] = point[1];
            z[i] = point[2];
        }
        for (int64_t q = b * m; q < (b + 1) * m; q++) {
            const float qx = queries[3 * q], qy = queries[3 * q + 1], qz = queries[3 * q + 2];
            for (int64_t i = 0; i < n; i++) {
                const float dx = x[i] - qx, dy = y[i] - qy, dz = z[i] - qz;
                far[i] = dx * dx + dy * dy + dz * dz;
            }
            memcpy(bits, far, (size_t)n * sizeof(float));
            const int32_t last = kth(bits, n, k);
            int64_t *chosen = picked + q * k, found = 0;
            for (int64_t i = 0; i < n && found < k; i++)
                if (bits[i] < last) chosen[found++] = i;
            for (int64_t i = 0; i < n && found < k; i++)
                if (bits[i] == last) chosen[found++] = i;
        }
    }
    free(room);
    return 0;
}
