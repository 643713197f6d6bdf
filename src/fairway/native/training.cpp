// Operations of a training step and their derivatives, each in one pass over memory. What they
// compute is said by their plain twins in runtime/kernels.py; here intermediate values stay in
// float32, or in float64 where numbers are, and results are rounded once. Sums over rows are added
// thread by thread, in order.

#include "numbers.h"

#include <omp.h>

namespace {

// Sums of each thread, added up in the order of threads.
template <typename T> struct Sums {
    int64_t width;
    std::vector<T> parts;

    explicit Sums(int64_t width) : width(width), parts(width * omp_get_max_threads(), T(0)) {}
    T *mine() { return parts.data() + width * omp_get_thread_num(); }
    void write(T *to) const {
        for (int64_t i = 0; i < width; i++) to[i] = T(0);
        for (size_t at = 0; at < parts.size(); at++) to[at % width] += parts[at];
    }
};

constexpr double EPS = 1.1920928955078125e-07;  // what the library adds to a mean square

template <typename T>
void cross_entropy(const T *logits, const int64_t *targets, W<T> cap, int64_t rows, int64_t vocab,
                   T *d_logits, double *nats) {
#pragma omp parallel
    {
        std::vector<W<T>> scores(vocab), bends(vocab);
        W<T> *z = scores.data(), *bend = bends.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const T *from = logits + row * vocab;
            T *to = d_logits + row * vocab;
            W<T> most = -INFINITY;
            if (cap > W<T>(0.0)) {
                W<T> twice = W<T>(2.0) / cap;
#pragma omp simd reduction(max : most)
                for (int64_t v = 0; v < vocab; v++) {
                    W<T> t = W<T>(1.0) - W<T>(2.0) / (exponential(get(from[v]) * twice) + W<T>(1.0));
                    bend[v] = W<T>(1.0) - t * t;
                    z[v] = cap * t;
                    most = z[v] > most ? z[v] : most;
                }
            } else {
#pragma omp simd reduction(max : most)
                for (int64_t v = 0; v < vocab; v++) {
                    z[v] = get(from[v]);
                    most = z[v] > most ? z[v] : most;
                }
            }
            int64_t target = targets[row];
            W<T> right = z[target], sum = W<T>(0.0);
#pragma omp simd reduction(+ : sum)
            for (int64_t v = 0; v < vocab; v++) {
                z[v] = exponential(z[v] - most);
                sum += z[v];
            }
            nats[row] = std::log(static_cast<double>(sum)) + most - right;
            W<T> each = W<T>(1.0) / (sum * static_cast<W<T>>(rows));
            W<T> whole = W<T>(1.0) / static_cast<W<T>>(rows);
            W<T> at_target = z[target] * each - whole;
            if (cap > W<T>(0.0)) {
#pragma omp simd
                for (int64_t v = 0; v < vocab; v++) put(to[v], z[v] * each * bend[v]);
                at_target *= bend[target];
            } else {
#pragma omp simd
                for (int64_t v = 0; v < vocab; v++) put(to[v], z[v] * each);
            }
            put(to[target], at_target);
        }
    }
}

template <typename T>
void rms_norm(const T *x, int64_t rows, int64_t width, W<T> scale, T *y, W<T> *inverse) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *from = x + row * width;
        W<T> square = W<T>(0.0);
#pragma omp simd reduction(+ : square)
        for (int64_t i = 0; i < width; i++) square += get(from[i]) * get(from[i]);
        W<T> by = W<T>(1.0) / std::sqrt(square / static_cast<W<T>>(width) + W<T>(EPS));
        inverse[row] = by;
        by *= scale;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) put(y[row * width + i], get(from[i]) * by);
    }
}

template <typename T>
void rms_norm_backward(const T *grad, const T *x, const W<T> *inverse, int64_t rows, int64_t width,
                       W<T> scale, T *d_x) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *from = x + row * width, *g = grad + row * width;
        W<T> along = W<T>(0.0), by = inverse[row];
#pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < width; i++) along += get(g[i]) * get(from[i]);
        along *= by * by / static_cast<W<T>>(width);
        by *= scale;
#pragma omp simd
        for (int64_t i = 0; i < width; i++)
            put(d_x[row * width + i], by * (get(g[i]) - along * get(from[i])));
    }
}

// mixed = mix[0] * x + mix[1] * other, or x + other; y = scale * mixed / rms(mixed).
template <typename T>
void mix_norm(const T *x, const T *other, const W<T> *mix, int64_t rows, int64_t width,
              W<T> scale, T *mixed, T *y, W<T> *inverse) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *a = x + row * width, *b = other + row * width;
        T *to = mixed + row * width;
        if (mix) {
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                put(to[i], mix[i] * get(a[i]) + mix[width + i] * get(b[i]));
        } else {
#pragma omp simd
            for (int64_t i = 0; i < width; i++) put(to[i], get(a[i]) + get(b[i]));
        }
        W<T> square = W<T>(0.0);
#pragma omp simd reduction(+ : square)
        for (int64_t i = 0; i < width; i++) square += get(to[i]) * get(to[i]);
        W<T> by = W<T>(1.0) / std::sqrt(square / static_cast<W<T>>(width) + W<T>(EPS));
        inverse[row] = by;
        by *= scale;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) put(y[row * width + i], get(to[i]) * by);
    }
}

template <typename T>
void mix_norm_backward(const T *d_mixed, const T *d_y, const T *x, const T *other, const T *mixed,
                       const W<T> *inverse, const W<T> *mix, int64_t rows, int64_t width,
                       W<T> scale, T *d_x, T *d_other, W<T> *d_mix) {
    Sums<W<T>> sums(mix ? 2 * width : 0);
#pragma omp parallel
    {
        W<T> *mine = sums.mine();
        std::vector<W<T>> whole(width);
        W<T> *d = whole.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const T *m = mixed + row * width, *g = d_y + row * width, *e = d_mixed + row * width;
            W<T> along = W<T>(0.0), by = inverse[row];
#pragma omp simd reduction(+ : along)
            for (int64_t i = 0; i < width; i++) along += get(g[i]) * get(m[i]);
            along *= by * by / static_cast<W<T>>(width);
            by *= scale;
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                d[i] = get(e[i]) + by * (get(g[i]) - along * get(m[i]));
            T *to = d_x + row * width;
            if (!mix) {
#pragma omp simd
                for (int64_t i = 0; i < width; i++) put(to[i], d[i]);
                continue;
            }
            const T *a = x + row * width, *b = other + row * width;
            T *too = d_other + row * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                put(to[i], mix[i] * d[i]);
                put(too[i], mix[width + i] * d[i]);
                mine[i] += d[i] * get(a[i]);
                mine[width + i] += d[i] * get(b[i]);
            }
        }
    }
    if (mix) sums.write(d_mix);
}

template <typename T>
void leaky_relu_squared(const T *x, int64_t size, W<T> slope, T *y) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < size; i++) {
        W<T> one = get(x[i]), bent = one > W<T>(0.0) ? one : slope * one;
        put(y[i], bent * bent);
    }
}

template <typename T>
void leaky_relu_squared_backward(const T *grad, const T *x, int64_t size, W<T> slope, T *d_x) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < size; i++) {
        W<T> one = get(x[i]), twice = W<T>(2.0) * get(grad[i]) * one;
        put(d_x[i], one > W<T>(0.0) ? twice : slope * slope * twice);
    }
}

// Heads (B, T, H, K) with rows `stride` apart -> normalized, rotated, times a gain: (B, H, T, K).
template <typename T>
void rotary_heads(const T *x, int64_t stride, const T *cosines, const T *sines, const W<T> *gain,
                  int64_t batch, int64_t length, int64_t heads, int64_t width, int64_t half, T *y,
                  W<T> *inverse) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * length; row++) {
        int64_t b = row / length, t = row % length;
        const T *cosine = cosines + t * half, *sine = sines + t * half;
        for (int64_t h = 0; h < heads; h++) {
            const T *from = x + row * stride + h * width;
            T *to = y + ((b * heads + h) * length + t) * width;
            W<T> square = W<T>(0.0);
#pragma omp simd reduction(+ : square)
            for (int64_t i = 0; i < width; i++) square += get(from[i]) * get(from[i]);
            W<T> by = W<T>(1.0) / std::sqrt(square / static_cast<W<T>>(width) + W<T>(EPS));
            inverse[row * heads + h] = by;
            by *= gain ? gain[h] : W<T>(1.0);
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                W<T> c = get(cosine[i]), s = get(sine[i]);
                W<T> first = get(from[i]) * by, second = get(from[half + i]) * by;
                put(to[i], first * c + second * s);
                put(to[half + i], second * c - first * s);
            }
#pragma omp simd
            for (int64_t i = 2 * half; i < width; i++) put(to[i], get(from[i]) * by);
        }
    }
}

template <typename T>
void rotary_heads_backward(const T *grad, const T *x, int64_t stride, const T *cosines,
                           const T *sines, const W<T> *gain, const W<T> *inverse, int64_t batch,
                           int64_t length, int64_t heads, int64_t width, int64_t half, T *d_x,
                           W<T> *d_gain) {
    Sums<W<T>> sums(heads);
#pragma omp parallel
    {
        W<T> *mine = sums.mine();
        std::vector<W<T>> turned(width);
        W<T> *d = turned.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < batch * length; row++) {
            int64_t b = row / length, t = row % length;
            const T *cosine = cosines + t * half, *sine = sines + t * half;
            for (int64_t h = 0; h < heads; h++) {
                const T *from = x + row * stride + h * width;
                const T *g = grad + ((b * heads + h) * length + t) * width;
                T *to = d_x + (row * heads + h) * width;
                W<T> along = W<T>(0.0), by = inverse[row * heads + h];
#pragma omp simd
                for (int64_t i = 0; i < half; i++) {  // turned back
                    W<T> c = get(cosine[i]), s = get(sine[i]);
                    W<T> first = get(g[i]), second = get(g[half + i]);
                    d[i] = first * c - second * s;
                    d[half + i] = second * c + first * s;
                }
#pragma omp simd
                for (int64_t i = 2 * half; i < width; i++) d[i] = get(g[i]);
#pragma omp simd reduction(+ : along)
                for (int64_t i = 0; i < width; i++) along += d[i] * get(from[i]);
                mine[h] += along * by;
                along *= by * by / static_cast<W<T>>(width);
                by *= gain ? gain[h] : W<T>(1.0);
#pragma omp simd
                for (int64_t i = 0; i < width; i++)
                    put(to[i], by * (d[i] - along * get(from[i])));
            }
        }
    }
    if (gain) sums.write(d_gain);
}

// y (B, H, T, K) less its component along the values (B, T, Hkv, K), rows `stride` apart
// -> (B, T, H, K).
template <typename T>
void exclude_self(const T *y, const T *values, int64_t stride, int64_t batch, int64_t length,
                  int64_t heads, int64_t kv_heads, int64_t width, T *out) {
    int64_t group = heads / kv_heads;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * length; row++) {
        int64_t b = row / length, t = row % length;
        for (int64_t h = 0; h < heads; h++) {
            const T *v = values + row * stride + h / group * width;
            const T *from = y + ((b * heads + h) * length + t) * width;
            T *to = out + (row * heads + h) * width;
            W<T> square = W<T>(0.0), dot = W<T>(0.0);
#pragma omp simd reduction(+ : square, dot)
            for (int64_t i = 0; i < width; i++) {
                square += get(v[i]) * get(v[i]);
                dot += get(v[i]) * get(from[i]);
            }
            W<T> norm = std::sqrt(square);
            norm = norm < W<T>(1e-12) ? W<T>(1e-12) : norm;
            W<T> along = dot / norm / norm;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) put(to[i], get(from[i]) - along * get(v[i]));
        }
    }
}

template <typename T>
void exclude_self_backward(const T *grad, const T *y, const T *values, int64_t stride,
                           int64_t batch, int64_t length, int64_t heads, int64_t kv_heads,
                           int64_t width, T *d_y, T *d_values) {
    int64_t group = heads / kv_heads;
#pragma omp parallel
    {
        std::vector<W<T>> whole(width);
        W<T> *d = whole.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < batch * length; row++) {
            int64_t b = row / length, t = row % length;
            for (int64_t kv = 0; kv < kv_heads; kv++) {
                const T *v = values + row * stride + kv * width;
                W<T> square = W<T>(0.0);
#pragma omp simd reduction(+ : square)
                for (int64_t i = 0; i < width; i++) square += get(v[i]) * get(v[i]);
                W<T> norm = std::sqrt(square);
                norm = norm < W<T>(1e-12) ? W<T>(1e-12) : norm;
                W<T> inverse = W<T>(1.0) / norm;
                for (int64_t i = 0; i < width; i++) d[i] = W<T>(0.0);
                for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
                    const T *from = y + ((b * heads + h) * length + t) * width;
                    const T *g = grad + (row * heads + h) * width;
                    T *to = d_y + ((b * heads + h) * length + t) * width;
                    W<T> a = W<T>(0.0), along = W<T>(0.0);
#pragma omp simd reduction(+ : a, along)
                    for (int64_t i = 0; i < width; i++) {
                        a += get(from[i]) * get(v[i]);
                        along += get(g[i]) * get(v[i]);
                    }
                    a *= inverse;
                    along *= inverse;
#pragma omp simd
                    for (int64_t i = 0; i < width; i++) {
                        put(to[i], get(g[i]) - along * inverse * get(v[i]));
                        d[i] -= along * get(from[i]) + a * get(g[i]);
                    }
                }
                W<T> along = W<T>(0.0);
#pragma omp simd reduction(+ : along)
                for (int64_t i = 0; i < width; i++) along += d[i] * get(v[i]);
                along *= inverse * inverse;
                T *to = d_values + (row * kv_heads + kv) * width;
#pragma omp simd
                for (int64_t i = 0; i < width; i++)
                    put(to[i], inverse * (d[i] - along * get(v[i])));
            }
        }
    }
}

// Weights (R, C), each row times a scale or as it is.
template <typename T>
void scaled_cast(const W<T> *weight, const W<T> *scale, int64_t rows, int64_t width, T *to) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        W<T> by = scale ? scale[row] : W<T>(1.0);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) put(to[row * width + i], weight[row * width + i] * by);
    }
}

template <typename T>
void scaled_cast_backward(const T *grad, const W<T> *weight, const W<T> *scale, int64_t rows,
                          int64_t width, W<T> *d_weight, W<T> *d_scale) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *g = grad + row * width;
        W<T> by = scale ? scale[row] : W<T>(1.0), sum = W<T>(0.0);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) {
            W<T> one = get(g[i]);
            sum += one * weight[row * width + i];
            d_weight[row * width + i] = one * by;
        }
        if (scale) d_scale[row] = sum;
    }
}

}  // namespace

#define ALL(NAME, PARAMETERS, T, ...)                                    \
    void NAME##_float32 PARAMETERS(float) { NAME<float>(__VA_ARGS__); }   \
    void NAME##_float64 PARAMETERS(double) { NAME<double>(__VA_ARGS__); }    \
    void NAME##_bfloat16 PARAMETERS(bfloat16) { NAME<bfloat16>(__VA_ARGS__); }

extern "C" {

#define P(T) (const T *a, const int64_t *b, double cap, int64_t rows, int64_t vocab, T *c, double *d)
ALL(cross_entropy, P, T, a, b, cap, rows, vocab, c, d)
#undef P
#define P(T) (const T *x, int64_t rows, int64_t width, double scale, T *y, W<T> *inverse)
ALL(rms_norm, P, T, x, rows, width, scale, y, inverse)
#undef P
#define P(T)                                                                              \
    (const T *g, const T *x, const W<T> *inverse, int64_t rows, int64_t width, double scale, \
     T *d)
ALL(rms_norm_backward, P, T, g, x, inverse, rows, width, scale, d)
#undef P
#define P(T)                                                                                 \
    (const T *x, const T *other, const W<T> *mix, int64_t rows, int64_t width, double scale, \
     T *mixed, T *y, W<T> *inverse)
ALL(mix_norm, P, T, x, other, mix, rows, width, scale, mixed, y, inverse)
#undef P
#define P(T)                                                                             \
    (const T *e, const T *g, const T *x, const T *other, const T *m, const W<T> *inverse, \
     const W<T> *mix, int64_t rows, int64_t width, double scale, T *dx, T *dother, W<T> *dmix)
ALL(mix_norm_backward, P, T, e, g, x, other, m, inverse, mix, rows, width, scale, dx, dother, dmix)
#undef P
#define P(T) (const T *x, int64_t size, double slope, T *y)
ALL(leaky_relu_squared, P, T, x, size, slope, y)
#undef P
#define P(T) (const T *g, const T *x, int64_t size, double slope, T *d)
ALL(leaky_relu_squared_backward, P, T, g, x, size, slope, d)
#undef P
#define P(T)                                                                                  \
    (const T *x, int64_t stride, const T *c, const T *s, const W<T> *gain, int64_t batch,    \
     int64_t length, int64_t heads, int64_t width, int64_t half, T *y, W<T> *inverse)
ALL(rotary_heads, P, T, x, stride, c, s, gain, batch, length, heads, width, half, y, inverse)
#undef P
#define P(T)                                                                                  \
    (const T *g, const T *x, int64_t stride, const T *c, const T *s, const W<T> *gain,       \
     const W<T> *inverse, int64_t batch, int64_t length, int64_t heads, int64_t width,       \
     int64_t half, T *dx, W<T> *dgain)
ALL(rotary_heads_backward, P, T, g, x, stride, c, s, gain, inverse, batch, length, heads, width,
     half, dx, dgain)
#undef P
#define P(T)                                                                               \
    (const T *y, const T *v, int64_t stride, int64_t batch, int64_t length, int64_t heads, \
     int64_t kv_heads, int64_t width, T *out)
ALL(exclude_self, P, T, y, v, stride, batch, length, heads, kv_heads, width, out)
#undef P
#define P(T)                                                                        \
    (const T *g, const T *y, const T *v, int64_t stride, int64_t batch, int64_t length, \
     int64_t heads, int64_t kv_heads, int64_t width, T *dy, T *dv)
ALL(exclude_self_backward, P, T, g, y, v, stride, batch, length, heads, kv_heads, width, dy, dv)
#undef P
#define P(T) (const W<T> *w, const W<T> *scale, int64_t rows, int64_t width, T *to)
ALL(scaled_cast, P, T, w, scale, rows, width, to)
#undef P
#define P(T)                                                                           \
    (const T *g, const W<T> *w, const W<T> *scale, int64_t rows, int64_t width, W<T> *dw, \
     W<T> *dscale)
ALL(scaled_cast_backward, P, T, g, w, scale, rows, width, dw, dscale)
#undef P

}  // extern "C"
