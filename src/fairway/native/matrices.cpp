// What a lesson in float64 multiplies: linear layers, attention, orthogonalization. What they
// compute is said by their plain twins in runtime/kernels.py and train/muon.py.

#include "products.h"

#include <omp.h>

namespace {

constexpr int64_t QUERIES = 64;  // that look at their past together

// A product of matrices that commute and are symmetric: half of it, and the other half by copying.
void symmetric(const double *a, const double *b, int64_t n, int64_t depth, bool turned, double *c) {
    View<double> right = turned ? View<double>{b, 1, depth} : View<double>{b, n, 1};
    product<double>({a, depth, 1}, right, c, n, n, n, depth, false, 1, true);
    for (int64_t i = 0; i < n; i += 8)
        for (int64_t j = 0; j <= i; j += 8)
            for (int64_t r = i; r < std::min(i + 8, n); r++)
                for (int64_t s = j; s < std::min(j + 8, r); s++) c[s * n + r] = c[r * n + s];
}

// `number` steps X <- (a + b A + c A A) X, where A = X X^T, for X (rows, width): through polynomials
// of the first A alone, which are smaller than X where that is wide.
void some_steps(double *x, int64_t rows, int64_t width, const double *triples, int64_t number) {
    Scratch<double> own;
    int64_t size = rows * rows;
    double *gram = own.take(size), *square = own.take(size), *all = own.take(size);
    double *spare = own.take(size), *moved = own.take(rows * width);
    symmetric(x, x, rows, width, true, gram);
    for (int64_t step = 0; step < number; step++, triples += 3) {
        symmetric(gram, gram, rows, rows, false, square);
#pragma omp simd
        for (int64_t i = 0; i < size; i++) square[i] = triples[1] * gram[i] + triples[2] * square[i];
        for (int64_t i = 0; i < rows; i++) square[i * rows + i] += triples[0];
        if (step == 0) {
            std::copy_n(square, size, all);
        } else {
            symmetric(square, all, rows, rows, false, spare);
            std::swap(all, spare);
        }
        if (step + 1 == number) break;
        symmetric(square, gram, rows, rows, false, spare);
        symmetric(spare, square, rows, rows, false, gram);
    }
    product<double>({all, rows, 1}, {x, width, 1}, moved, width, rows, width, rows);
    std::copy_n(moved, rows * width, x);
}

}  // namespace

extern "C" {

// Whether these are worth more than the library's, which uses half of such registers on some
// processors that have them.
int64_t matrices_pay() { return REGISTER_BYTES == 64; }

void linear(const double *x, const double *weight, int64_t rows, int64_t in, int64_t out, double *y) {
    product<double>({x, in, 1}, {weight, 1, in}, y, out, rows, out, in, false, omp_get_max_threads());
}

// Either derivative may be null: it is not wanted.
void linear_backward(const double *grad, const double *x, const double *weight, int64_t rows,
                     int64_t in, int64_t out, double *d_x, double *d_weight) {
    int workers = omp_get_max_threads();
    if (d_x) product<double>({grad, out, 1}, {weight, in, 1}, d_x, in, rows, in, out, false, workers);
    if (d_weight)
        product<double>({grad, 1, out}, {x, in, 1}, d_weight, in, out, in, rows, false, workers);
}

// Causal attention: q and y (B, H, T, K), k and v (B, Hkv, T, K); shares (B, H, T, T), of which only
// what a block of queries may look at is written.
void attend(const double *q, const double *k, const double *v, int64_t batch, int64_t heads,
            int64_t kv_heads, int64_t length, int64_t width, double *y, double *shares) {
    using Of = Tiles<double>;
    double by = 1.0 / std::sqrt(static_cast<double>(width));
#pragma omp parallel for schedule(dynamic)
    for (int64_t one = 0; one < batch * heads; one++) {
        int64_t kv = one / heads * kv_heads + one % heads / (heads / kv_heads);
        const double *queries = q + one * length * width;
        double *of_head = shares + one * length * length;
        Scratch<double> own;
        double *turned = own.take(Of::packed_size(width, length));
        double *lying = own.take(Of::packed_size(length, width));
        Of::pack_all(View<double>{k + kv * length * width, 1, width}, width, length, turned);
        Of::pack_all(View<double>{v + kv * length * width, width, 1}, length, width, lying);
        for (int64_t from = 0; from < length; from += QUERIES) {
            int64_t number = std::min(QUERIES, length - from), end = from + number;
            double *block = of_head + from * length;
            Of::sweep(queries + from * width, width, 1, number, turned, Of::columns * width, width,
                      end, block, length, false);
            for (int64_t r = 0; r < number; r++) {
                double *row = block + r * length, most = -INFINITY, total = 0.0;
                int64_t seen = from + r + 1;
#pragma omp simd reduction(max : most)
                for (int64_t j = 0; j < seen; j++) most = row[j] > most ? row[j] : most;
#pragma omp simd reduction(+ : total)
                for (int64_t j = 0; j < seen; j++) {
                    row[j] = exponential(by * (row[j] - most));
                    total += row[j];
                }
                double share = 1.0 / total;
#pragma omp simd
                for (int64_t j = 0; j < seen; j++) row[j] *= share;
                std::fill(row + seen, row + end, 0.0);
            }
            Of::sweep(block, length, 1, number, lying, Of::columns * length, end, width,
                      y + (one * length + from) * width, width, false);
        }
    }
}

void attend_backward(const double *grad, const double *q, const double *k, const double *v,
                     const double *shares, int64_t batch, int64_t heads, int64_t kv_heads,
                     int64_t length, int64_t width, double *d_q, double *d_k, double *d_v) {
    int64_t group = heads / kv_heads, size = length * width;
    double by = 1.0 / std::sqrt(static_cast<double>(width));
#pragma omp parallel for schedule(dynamic)
    for (int64_t kv = 0; kv < batch * kv_heads; kv++) {
        Scratch<double> own;
        double *d_scores = own.take(QUERIES * length);
        const double *keys = k + kv * size, *values = v + kv * size;
        std::fill(d_k + kv * size, d_k + (kv + 1) * size, 0.0);
        std::fill(d_v + kv * size, d_v + (kv + 1) * size, 0.0);
        for (int64_t one = kv * group; one < (kv + 1) * group; one++)
            for (int64_t from = 0; from < length; from += QUERIES) {
                int64_t number = std::min(QUERIES, length - from), end = from + number;
                const double *g = grad + one * size + from * width;
                const double *p = shares + (one * length + from) * length;
                product<double>({g, width, 1}, {values, 1, width}, d_scores, end, number, end, width);
                for (int64_t r = 0; r < number; r++) {
                    double *row = d_scores + r * end, along = 0.0;
                    const double *share = p + r * length;
#pragma omp simd reduction(+ : along)
                    for (int64_t j = 0; j < end; j++) along += share[j] * row[j];
#pragma omp simd
                    for (int64_t j = 0; j < end; j++) row[j] = by * share[j] * (row[j] - along);
                }
                const double *queries = q + one * size + from * width;
                product<double>({d_scores, end, 1}, {keys, width, 1}, d_q + one * size + from * width,
                                width, number, width, end);
                product<double>({d_scores, 1, end}, {queries, width, 1}, d_k + kv * size, width, end,
                                width, number, true);
                product<double>({p, 1, length}, {g, width, 1}, d_v + kv * size, width, end, width,
                                number, true);
            }
    }
}

// x (number, rows, width), not higher than wide, in place.
void orthogonalize(double *x, int64_t number, int64_t rows, int64_t width, const double *triples,
                   int64_t steps) {
    bool wide = width >= 2 * rows;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < number; i++)
        // The first steps enlarge what is small; a polynomial of many would round that away.
        for (int64_t done = 0; done < steps;) {
            int64_t now = !wide ? 1 : std::min(steps - done, done ? INT64_C(3) : INT64_C(2));
            some_steps(x + i * rows * width, rows, width, triples + 3 * done, now);
            done += now;
        }
}

}  // extern "C"
