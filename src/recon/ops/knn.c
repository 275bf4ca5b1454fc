/* Exact nearest neighbors in a batch of clouds; see neighbors.py for the definition. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Returns the k-th smallest of n values. The bits of non-negative floats sort like the floats, so
   this is a binary search over integers. */
static int32_t kth_smallest(const int32_t *bits, int64_t n, int64_t k)
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

/* queries: (batch, m, 3); points: (batch, n, 3), n >= k. picked: (batch, m, k), in no particular
   order; among equally far points the first are picked. Returns 0, or 1 if out of memory. */
int recon_knn(const float *queries, const float *points, int64_t batch, int64_t m, int64_t n,
              int64_t k, int64_t *picked)
{
    float *buffer = malloc((size_t)(5 * n) * sizeof(float));
    if (!buffer) return 1;
    float *restrict x = buffer, *restrict y = x + n, *restrict z = y + n;
    float *restrict distance = z + n;
    int32_t *bits = (int32_t *)(distance + n);
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
                distance[i] = dx * dx + dy * dy + dz * dz;
            }
            memcpy(bits, distance, (size_t)n * sizeof(float));
            const int32_t largest = kth_smallest(bits, n, k);
            int64_t *neighbors = picked + q * k, filled = 0;
            for (int64_t i = 0; i < n && filled < k; i++)
                if (bits[i] < largest) neighbors[filled++] = i;
            for (int64_t i = 0; i < n && filled < k; i++)
                if (bits[i] == largest) neighbors[filled++] = i;
        }
    }
    free(buffer);
    return 0;
}
