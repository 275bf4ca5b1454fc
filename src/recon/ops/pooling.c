/* Gradients of the maximum over points of a linear layer; see pooling.py for the definition. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* x: (patches, width, points); weight: (channels, width); grad: (patches, channels), and at of the
   same shape says which point was the largest. Writes of_x, like x; adds to of_weight, like weight.
   Only those points get a gradient: one of `points` a patch and channel. Returns 0, or 1 without
   memory. */
int recon_linear_max_backward(const float *x, const float *weight, const float *grad,
                              const int64_t *at, int64_t patches, int64_t width, int64_t points,
                              int64_t channels, float *of_x, float *of_weight)
{
    const int64_t size = width * points;
    float *rows = malloc((size_t)size * 2 * sizeof(float)), *of_rows = rows + size;
    if (!rows) return 1;
    for (int64_t p = 0; p < patches; p++) {
        const float *from = x + p * size;
        for (int64_t d = 0; d < width; d++)
            for (int64_t k = 0; k < points; k++) rows[k * width + d] = from[d * points + k];
        memset(of_rows, 0, (size_t)size * sizeof(float));
        for (int64_t c = 0; c < channels; c++) {
            const int64_t k = at[p * channels + c];
            const float g = grad[p * channels + c], *w = weight + c * width, *row = rows + k * width;
            float *of_row = of_rows + k * width, *of_w = of_weight + c * width;
            for (int64_t d = 0; d < width; d++) {
                of_row[d] += g * w[d];
                of_w[d] += g * row[d];
            }
        }
        float *to = of_x + p * size;
        for (int64_t d = 0; d < width; d++)
            for (int64_t k = 0; k < points; k++) to[d * points + k] = of_rows[k * width + d];
    }
    free(rows);
    return 0;
}
