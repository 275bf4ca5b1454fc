/* Maximum over the points of a patch, and its gradients; see pooling.py for the definition.
   x is float32, or bfloat16 if is_bf16; all else is float32. native.py defines MAX_POINTS. */
#include <stdint.h>
#include <string.h>

#define TILE 128 /* channels at a time, so that the rows of a patch stay in the L1 cache */

static void load(const void *source, int64_t is_bf16, int64_t start, int64_t count,
                 float *restrict target)
{
    if (!is_bf16) {
        memcpy(target, (const float *)source + start, (size_t)count * sizeof(float));
        return;
    }
    const uint16_t *halves = (const uint16_t *)source + start;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)halves[i] << 16;
        memcpy(target + i, &bits, sizeof(bits));
    }
}

static void store(const float *restrict source, int64_t is_bf16, void *target, int64_t start,
                  int64_t count)
{
    if (!is_bf16) {
        memcpy((float *)target + start, source, (size_t)count * sizeof(float));
        return;
    }
    uint16_t *halves = (uint16_t *)target + start;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, source + i, sizeof(bits));
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        halves[i] = (uint16_t)(source[i] != source[i] ? 0x7fc0 : rounded); /* to nearest even */
    }
}

/* x: (patches, points, channels). Writes the maxima over the points, (patches, channels), in the
   type of x, and the indices of their points; NaN counts as the maximum. */
void recon_max_over_points(const void *x, int64_t is_bf16, int64_t patches, int64_t points,
                           int64_t channels, void *maximum, int32_t *argmax)
{
    float row[TILE], best[TILE];
    int32_t best_k[TILE];
    for (int64_t p = 0; p < patches; p++)
        for (int64_t c = 0; c < channels; c += TILE) {
            const int64_t tile = channels - c < TILE ? channels - c : TILE;
            load(x, is_bf16, p * points * channels + c, tile, best);
            memset(best_k, 0, sizeof(best_k));
            for (int32_t k = 1; k < points; k++) {
                load(x, is_bf16, (p * points + k) * channels + c, tile, row);
                for (int64_t i = 0; i < tile; i++) {
                    const int larger = (row[i] > best[i]) | (row[i] != row[i]);
                    best[i] = larger ? row[i] : best[i];
                    best_k[i] = larger ? k : best_k[i];
                }
            }
            store(best, is_bf16, maximum, p * channels + c, tile);
            memcpy(argmax + p * channels + c, best_k, (size_t)tile * sizeof(*best_k));
        }
}

/* Gradients of the maximum of a linear layer. x: (patches, points, width), points <= MAX_POINTS;
   weight: (channels, width); grad and argmax: (patches, channels). Writes grad_x, shaped like x; if
   rectified, it is 0 where x <= 0. Adds to grad_weight, shaped like weight. Only the points in
   argmax get a gradient. */
void recon_linear_max_backward(const void *x, int64_t is_bf16, int64_t rectified,
                               const float *weight, const float *grad, const int32_t *argmax,
                               int64_t patches, int64_t points, int64_t width, int64_t channels,
                               void *grad_x, float *grad_weight)
{
    float rows[MAX_POINTS * TILE], grad_rows[MAX_POINTS * TILE];
    for (int64_t d = 0; d < width; d += TILE) {
        const int64_t tile = width - d < TILE ? width - d : TILE;
        for (int64_t p = 0; p < patches; p++) {
            for (int64_t k = 0; k < points; k++)
                load(x, is_bf16, (p * points + k) * width + d, tile, rows + k * TILE);
            memset(grad_rows, 0, (size_t)(points * TILE) * sizeof(float));
            for (int64_t c = 0; c < channels; c++) {
                const float g = grad[p * channels + c], *restrict w = weight + c * width + d;
                const int64_t k = argmax[p * channels + c];
                const float *restrict row = rows + k * TILE;
                float *restrict grad_row = grad_rows + k * TILE;
                float *restrict grad_w = grad_weight + c * width + d;
                for (int64_t i = 0; i < tile; i++) {
                    grad_row[i] += g * w[i];
                    grad_w[i] += g * row[i];
                }
            }
            for (int64_t k = 0; k < points; k++) {
                float *grad_row = grad_rows + k * TILE;
                const float *row = rows + k * TILE;
                if (rectified)
                    for (int64_t i = 0; i < tile; i++) grad_row[i] = row[i] > 0 ? grad_row[i] : 0;
                store(grad_row, is_bf16, grad_x, (p * points + k) * width + d, tile);
            }
        }
    }
}
