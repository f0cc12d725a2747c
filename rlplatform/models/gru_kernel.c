/* Elementwise parts of a GRU step, forward and backward, each one pass over memory. See gru_kernel.py.
 *
 * B rows, H columns, row-major. A product may come and go as bfloat16: `low` says which it is; everything else is float.
 */
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EXPORT __attribute__((visibility("default"), target_clones("arch=x86-64-v4","arch=x86-64-v3","default")))
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

INLINE float from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
INLINE uint32_t to_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
INLINE float widen(bf16 x) { return from_bits((uint32_t)x << 16); }
INLINE bf16 narrow(float x) {  /* to the nearest, ties to even */
    uint32_t u = to_bits(x);
    return (bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* exp to 2 ulp: x = n ln 2 + r, a polynomial in r (Cephes), n added to the exponent. */
INLINE float exp_(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;  /* adding 1.5 * 2^23 rounds to an integer, held in the low bits */
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return from_bits(to_bits(p) + (to_bits(shifted) << 23));
}
INLINE float sigmoid_(float x) { return 1.0f / (1.0f + exp_(-x)); }
INLINE float tanh_(float x) { return 1.0f - 2.0f / (1.0f + exp_(2.0f * x)); }

INLINE float read(const void *p, int64_t i, int low) { return low ? widen(((const bf16 *)p)[i]) : ((const float *)p)[i]; }

/* r, z, n, a_n and h of one step from the products W x and U g, both without bias; then g of the next step. */
INLINE void forward(int64_t B, int64_t H, int low, const void *wx, const void *ug, const float *b_input, const float *b_hidden,
                    const float *g, const float *keep_next, float *restrict reset, float *restrict update,
                    float *restrict new_, float *restrict a_new, float *restrict h, float *restrict g_next,
                    bf16 *restrict g_next_low) {
    for (int64_t b = 0; b < B; b++) {
        const int64_t row = b * H, row3 = 3 * b * H;
#pragma GCC ivdep
        for (int64_t i = 0; i < H; i++) {
            float r = sigmoid_(read(wx, row3 + i, low) + b_input[i] + read(ug, row3 + i, low) + b_hidden[i]);
            float z = sigmoid_(read(wx, row3 + H + i, low) + b_input[H + i] + read(ug, row3 + H + i, low) + b_hidden[H + i]);
            float a = read(ug, row3 + 2 * H + i, low) + b_hidden[2 * H + i];
            float n = tanh_(read(wx, row3 + 2 * H + i, low) + b_input[2 * H + i] + r * a);
            float out = n + z * (g[row + i] - n);
            reset[row + i] = r;
            update[row + i] = z;
            new_[row + i] = n;
            a_new[row + i] = a;
            h[row + i] = out;
        }
        if (!g_next) continue;
        const float keep = keep_next ? keep_next[b] : 1.0f;
        for (int64_t i = 0; i < H; i++) g_next[row + i] = keep * h[row + i];
        if (low)
            for (int64_t i = 0; i < H; i++) g_next_low[row + i] = narrow(keep * h[row + i]);
    }
}

INLINE void write(void *p, int64_t i, int low, float x) {
    if (low) ((bf16 *)p)[i] = narrow(x); else ((float *)p)[i] = x;
}

/* The gradients (c_n, r, z, a_n) of one step, side by side, and their sums over rows.
 * `carry` brings e ∘ z of the next step and takes away that of this one; `through` is Uᵀ ∂a of the next step, or NULL. */
INLINE void backward(int64_t B, int64_t H, int low, const float *grad_h, const void *through, const float *keep_next,
                     const float *g, const float *reset, const float *update, const float *new_, const float *a_new,
                     float *restrict carry, void *restrict grads, float *restrict sums) {
    for (int64_t b = 0; b < B; b++) {
        const int64_t row = b * H, row4 = 4 * b * H;
        const float keep = keep_next ? keep_next[b] : 1.0f;
        if (through)
#pragma GCC ivdep
            for (int64_t i = 0; i < H; i++) carry[row + i] = grad_h[row + i] + keep * (read(through, row + i, low) + carry[row + i]);
        else
            for (int64_t i = 0; i < H; i++) carry[row + i] = grad_h[row + i];
#pragma GCC ivdep
        for (int64_t i = 0; i < H; i++) {
            float e = carry[row + i], r = reset[row + i], z = update[row + i], n = new_[row + i], a = a_new[row + i];
            float of_new = e * (1.0f - z) * (1.0f - n * n);
            float of_a_new = of_new * r;
            float of_reset = of_a_new * a * (1.0f - r);
            float of_update = e * (g[row + i] - n) * z * (1.0f - z);
            write(grads, row4 + i, low, of_new);
            write(grads, row4 + H + i, low, of_reset);
            write(grads, row4 + 2 * H + i, low, of_update);
            write(grads, row4 + 3 * H + i, low, of_a_new);
            sums[i] += of_new;
            sums[H + i] += of_reset;
            sums[2 * H + i] += of_update;
            sums[3 * H + i] += of_a_new;
            carry[row + i] = e * z;
        }
    }
}

#define FORWARD(NAME, LOW)                                                                                                  \
    EXPORT void NAME(int64_t B, int64_t H, const void *wx, const void *ug, const float *b_input, const float *b_hidden,            \
                     const float *g, const float *keep_next, float *reset, float *update, float *new_, float *a_new,         \
                     float *h, float *g_next, bf16 *g_next_low) {                                                            \
        forward(B, H, LOW, wx, ug, b_input, b_hidden, g, keep_next, reset, update, new_, a_new, h, g_next, g_next_low);      \
    }
#define BACKWARD(NAME, LOW)                                                                                                 \
    EXPORT void NAME(int64_t B, int64_t H, const float *grad_h, const void *through, const float *keep_next, const float *g,       \
                     const float *reset, const float *update, const float *new_, const float *a_new, float *carry,           \
                     void *grads, float *sums) {                                                                             \
        backward(B, H, LOW, grad_h, through, keep_next, g, reset, update, new_, a_new, carry, grads, sums);                  \
    }

FORWARD(gru_forward_float32, 0)
FORWARD(gru_forward_bfloat16, 1)
BACKWARD(gru_backward_float32, 0)
BACKWARD(gru_backward_bfloat16, 1)
