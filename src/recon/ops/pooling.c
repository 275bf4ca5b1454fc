/* Maxima over the points of a patch, and gradients through them; see pooling.py for the definition.
   x is float32, or bfloat16 where half is not 0; all else is float32. native.py defines POINTS. */
#include <stdint.h>
#include <string.h>

#define WIDE 128 /* channels at a time: the rows of a patch stay in the first cache */

static void load(const void *from, int64_t half, int64_t start, int64_t count, float *restrict to)
{
    if (!half) {
        memcpy(to, (const float *)from + start, (size_t)count * sizeof(float));
        return;
    }
    const uint16_t *narrow = (const uint16_t *)from + start;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)narrow[i] << 16;
        memcpy(to + i, &bits, sizeof(bits));
    }
}

static void store(const float *restrict from, int64_t half, void *to, int64_t start, int64_t count)
{
    if (!half) {
        memcpy((float *)to + start, from, (size_t)count * sizeof(float));
        return;
    }
    uint16_t *narrow = (uint16_t *)to + start;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof(bits));
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        narrow[i] = (uint16_t)(from[i] != from[i] ? 0x7fc0 : rounded); /* to the nearest, even */
    }
}

/* x: (patches, points, channels). Writes the largest, (patches, channels) of the type of x, NaN where
   there is one, and which of the points it is. */
void recon_max_over_points(const void *x, int64_t half, int64_t patches, int64_t points,
                           int64_t channels, void *largest, int32_t *at)
{
    float row[WIDE], best[WIDE];
    int32_t where[WIDE];
    for (int64_t p = 0; p < patches; p++)
        for (int64_t c = 0; c < channels; c += WIDE) {
            const int64_t wide = channels - c < WIDE ? channels - c : WIDE;
            load(x, half, p * points * channels + c, wide, best);
            memset(where, 0, sizeof(where));
            for (int32_t k = 1; k < points; k++) {
                load(x, half, (p * points + k) * channels + c, wide, row);
                for (int64_t i = 0; i < wide; i++) {
                    const int larger = (row[i] > best[i]) | (row[i] != row[i]);
                    best[i] = larger ? row[i] : best[i];
                    where[i] = larger ? k : where[i];
                }
            }
            store(best, half, largest, p * channels + c, wide);
            memcpy(at + p * channels + c, where, (size_t)wide * sizeof(*where));
        }
}

/* Gradients of that maximum of a linear layer. x: (patches, points, width), points up to POINTS;
   weight: (channels, width); grad and at: (patches, channels). Writes of_x, like x, 0 where x is not
   above 0 if rectified; adds to of_weight, like weight. Only points that were largest get a
   gradient. */
void recon_linear_max_backward(const void *x, int64_t half, int64_t rectified, const float *weight,
                               const float *grad, const int32_t *at, int64_t patches,
                               int64_t points, int64_t width, int64_t channels, void *of_x,
                               float *of_weight)
{
    float rows[POINTS * WIDE], of_rows[POINTS * WIDE];
    for (int64_t d = 0; d < width; d += WIDE) {
        const int64_t wide = width - d < WIDE ? width - d : WIDE;
        for (int64_t p = 0; p < patches; p++) {
            for (int64_t k = 0; k < points; k++)
                load(x, half, (p * points + k) * width + d, wide, rows + k * WIDE);
            memset(of_rows, 0, (size_t)(points * WIDE) * sizeof(float));
            for (int64_t c = 0; c < channels; c++) {
                const float g = grad[p * channels + c], *restrict w = weight + c * width + d;
                const int64_t k = at[p * channels + c];
                const float *restrict row = rows + k * WIDE;
                float *restrict of_row = of_rows + k * WIDE, *restrict of_w = of_weight + c * width + d;
                for (int64_t i = 0; i < wide; i++) {
                    of_row[i] += g * w[i];
                    of_w[i] += g * row[i];
                }
            }
            for (int64_t k = 0; k < points; k++) {
                float *of_row = of_rows + k * WIDE;
                const float *row = rows + k * WIDE;
                if (rectified)
                    for (int64_t i = 0; i < wide; i++) of_row[i] = row[i] > 0 ? of_row[i] : 0;
                store(of_row, half, of_x, (p * points + k) * width + d, wide);
            }
        }
    }
}
