// A few vectors at a time: what one more token of every row needs, where matrices are read once.
//
// Each sum is taken in one order, whatever the number of vectors and threads.

#include "products.h"

namespace {

constexpr double EPS = 1.1920928955078125e-07;  // float32's, which the model adds in float64, too

thread_local int workers = 1;  // threads of a product

__attribute__((always_inline)) inline double sigmoid(double x) { return 1.0 / (1.0 + exponential(-x)); }

template <typename T> struct Wide {
    typedef T vec __attribute__((vector_size(64)));
    static constexpr int64_t lanes = 64 / sizeof(T);

    static vec load(const T *from) {
        vec v;
        std::memcpy(&v, from, 64);
        return v;
    }
    template <typename S> static vec widen(const S *from) {  // numbers kept in half the memory
        typedef S narrow __attribute__((vector_size(lanes * sizeof(S))));
        narrow v;
        std::memcpy(&v, from, sizeof v);
        return __builtin_convertvector(v, vec);
    }
    static T sum(vec v) {  // the upper half onto the lower, down to a quarter of a vector
        typedef T half __attribute__((vector_size(32)));
        typedef T quarter __attribute__((vector_size(16)));
        half halves[2];
        quarter quarters[2];
        std::memcpy(halves, &v, 64);
        halves[0] += halves[1];
        std::memcpy(quarters, halves, 32);
        quarter q = quarters[0] + quarters[1];
        if constexpr (sizeof(T) == 8)
            return q[0] + q[1];
        else
            return (q[0] + q[2]) + (q[1] + q[3]);
    }
};

// to[b][r] = weights[r] . x[b] for R rows of weights and B vectors, all of them `width` long.
template <int R, int B, typename T, typename S>
inline void dots(const S *weights, const T *x, int64_t width, T *to, int64_t stride) {
    using W = Wide<T>;
    typename W::vec sums[R][B] = {};
    int64_t whole = width / W::lanes * W::lanes;
    for (int64_t k = 0; k < whole; k += W::lanes) {
        typename W::vec those[B];
        for (int b = 0; b < B; b++) those[b] = W::load(x + b * width + k);
        for (int r = 0; r < R; r++) {
            typename W::vec w = W::widen(weights + r * width + k);
            for (int b = 0; b < B; b++) sums[r][b] += w * those[b];
        }
    }
    for (int r = 0; r < R; r++)
        for (int b = 0; b < B; b++) {
            T total = W::sum(sums[r][b]);
            for (int64_t k = whole; k < width; k++)
                total += static_cast<T>(weights[r * width + k]) * x[b * width + k];
            to[b * stride + r] = total;
        }
}

template <int R, typename T, typename S>
inline void rows_of(const S *weights, const T *x, int64_t batch, int64_t width, T *to,
                    int64_t stride) {
    int64_t b = 0;
    for (; b + 4 <= batch; b += 4) dots<R, 4>(weights, x + b * width, width, to + b * stride, stride);
    if (b + 2 <= batch) dots<R, 2>(weights, x + b * width, width, to + b * stride, stride), b += 2;
    for (; b < batch; b++) dots<R, 1>(weights, x + b * width, width, to + b * stride, stride);
}

// x (batch, in) -> to (batch, out) for weights (out, in).
template <typename T, typename S>
void multiply(const S *weights, const T *x, int64_t batch, int64_t out, int64_t in, T *to) {
    constexpr int64_t R = 4;
    int64_t blocks = out / R;
#pragma omp parallel for schedule(static) num_threads(workers) if (out * in * batch > WORTH_THREADS)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t r = block * R;
        rows_of<R>(weights + r * in, x, batch, in, to + r, out);
    }
    for (int64_t r = blocks * R; r < out; r++) rows_of<1>(weights + r * in, x, batch, in, to + r, out);
}

template <typename T> T dot(const T *a, const T *b, int64_t width) {
    T found;
    dots<1, 1>(a, b, width, &found, 1);
    return found;
}

template <typename T> void normalize(const T *x, int64_t width, double scale, T *to) {
    T by = static_cast<T>(scale / std::sqrt(dot(x, x, width) / static_cast<double>(width) + EPS));
#pragma omp simd
    for (int64_t i = 0; i < width; i++) to[i] = x[i] * by;
}

// The sum of `count` rows of x, each by its weight, over `total`.
template <typename T>
void weigh(const T *x, const T *weights, int64_t count, int64_t width, T total, T *to) {
    using W = Wide<T>;
    int64_t i = 0;
    for (; i + 4 * W::lanes <= width; i += 4 * W::lanes) {
        typename W::vec sums[4] = {};
        for (int64_t j = 0; j < count; j++)
            for (int64_t n = 0; n < 4; n++)
                sums[n] += weights[j] * W::load(x + j * width + i + n * W::lanes);
        for (int64_t n = 0; n < 4; n++) sums[n] /= total;
        std::memcpy(to + i, sums, sizeof sums);
    }
    for (int64_t rest = i; rest < width; rest++) to[rest] = T(0);
    for (int64_t j = 0; j < count; j++) {
#pragma omp simd
        for (int64_t rest = i; rest < width; rest++) to[rest] += weights[j] * x[j * width + rest];
    }
    for (; i < width; i++) to[i] /= total;
}

}  // namespace
