// Products of matrices, and what else several sources need: exponentials and wide registers.
//
// A product is made of small tiles of the result that stay in registers. Each sum is taken in one
// order, whatever the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int64_t REGISTER_BYTES = 64, TILE_ROWS = 8, TILE_REGISTERS = 2;
#else
constexpr int64_t REGISTER_BYTES = 32, TILE_ROWS = 4, TILE_REGISTERS = 2;
#endif
constexpr int64_t MOST_DEPTH = 512;  // of a tile's sums before they are added to the result
constexpr int64_t TILE_GROUP = 4;    // tiles below one another that a thread takes at once
constexpr int64_t WORTH_THREADS = 1 << 18;  // products, below which one thread is faster

// Within two units in the last place. Loops around it vectorize where it is inlined.
__attribute__((always_inline)) inline double exponential(double x) {
    x = x > 709.0 ? 709.0 : x;
    x = x < -708.0 ? -708.0 : x;
    double n = std::nearbyint(x * 1.4426950408889634);
    double r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    uint64_t bits = static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, 8);
    return p * power;
}

// Memory that a thread keeps from call to call, for what it needs meanwhile: handed out in order,
// given back all at once by whoever marked a place.
template <typename T> struct Arena {
    std::vector<std::vector<T>> blocks;
    size_t block = 0, used = 0;

    T *take(int64_t size) {
        size_t padded = (static_cast<size_t>(size) + 7) / 8 * 8;
        while (block < blocks.size() && used + padded > blocks[block].size()) block++, used = 0;
        if (block == blocks.size()) {
            blocks.emplace_back(std::max<size_t>(padded, size_t(1) << 17));
            used = 0;
        }
        T *found = blocks[block].data() + used;
        used += padded;
        return found;
    }
    static Arena &mine() {
        static thread_local Arena arena;
        return arena;
    }
};

template <typename T> struct Scratch {  // gives back what was taken while it lives
    Arena<T> &arena = Arena<T>::mine();
    size_t block = arena.block, used = arena.used;

    T *take(int64_t size) { return arena.take(size); }
    ~Scratch() { arena.block = block, arena.used = used; }
};

// Numbers at `at[r * row + c * column]`.
template <typename T> struct View {
    const T *at;
    int64_t row, column;
};

template <typename T> struct Tiles {
    typedef T vec __attribute__((vector_size(REGISTER_BYTES)));
    static constexpr int64_t lanes = REGISTER_BYTES / sizeof(T);
    static constexpr int64_t columns = TILE_REGISTERS * lanes;

    static vec load(const T *from) {
        vec v;
        std::memcpy(&v, from, REGISTER_BYTES);
        return v;
    }

    static int64_t packed_size(int64_t depth, int64_t width) {
        return (width + columns - 1) / columns * columns * depth;
    }

    // One panel of b, `columns` wide: row after row, zeros beyond its edge.
    template <typename S>
    static void pack(View<S> b, int64_t depth, int64_t begin, int64_t width, T *to) {
        int64_t own = std::min(columns, width - begin);
        const S *from = b.at + begin * b.column;
        if (own == columns && b.column == 1) {
            for (int64_t k = 0; k < depth; k++) widen(from + k * b.row, to + k * columns);
            return;
        }
        int64_t blocks = own == columns && b.row == 1 ? depth / lanes * lanes : 0;
        for (int64_t k = 0; k < blocks; k += lanes)
            for (int64_t j = 0; j < columns; j += lanes)
                turn(from + k + j * b.column, b.column, to + k * columns + j);
        for (int64_t k = blocks; k < depth; k++) {
            for (int64_t j = 0; j < own; j++) to[k * columns + j] = from[k * b.row + j * b.column];
            for (int64_t j = own; j < columns; j++) to[k * columns + j] = T(0);
        }
    }

    template <typename S> static vec wide(const S *from) {
        typedef S narrow __attribute__((vector_size(lanes * sizeof(S))));
        narrow v;
        std::memcpy(&v, from, sizeof v);
        return __builtin_convertvector(v, vec);
    }

    template <typename S> static void widen(const S *from, T *to) {
        for (int64_t n = 0; n < TILE_REGISTERS; n++) {
            vec v = wide(from + n * lanes);
            std::memcpy(to + n * lanes, &v, REGISTER_BYTES);
        }
    }

    // As many lines as a register has lanes, `apart` from one another, turned: half of the lanes
    // change places, then a quarter, and so on.
    template <typename S> static void turn(const S *from, int64_t apart, T *to) {
        typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> index;
        typedef index places __attribute__((vector_size(REGISTER_BYTES)));
        vec lines[lanes];
        for (int64_t i = 0; i < lanes; i++) lines[i] = wide(from + i * apart);
#pragma GCC unroll 4
        for (int64_t half = lanes / 2; half > 0; half /= 2) {
            places low, high;
            for (int64_t i = 0; i < lanes; i++) {
                low[i] = static_cast<index>(i & half ? i - half + lanes : i);
                high[i] = static_cast<index>(i & half ? i + lanes : i + half);
            }
            for (int64_t i = 0; i < lanes; i++) {
                if (i & half) continue;
                vec a = lines[i], b = lines[i + half];
                lines[i] = __builtin_shuffle(a, b, low);
                lines[i + half] = __builtin_shuffle(a, b, high);
            }
        }
        for (int64_t i = 0; i < lanes; i++) std::memcpy(to + i * columns, &lines[i], REGISTER_BYTES);
    }

    // R rows of a times one panel, into the first `own` columns of c.
    template <int R>
    static void multiply(const T *a, int64_t row, int64_t step, const T *panel, int64_t depth,
                         T *c, int64_t stride, int64_t own, bool add) {
        vec sums[R][TILE_REGISTERS] = {};
        for (int64_t k = 0; k < depth; k++) {
            vec b[TILE_REGISTERS];
            for (int64_t n = 0; n < TILE_REGISTERS; n++) b[n] = load(panel + k * columns + n * lanes);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) {
                T x = a[r * row + k * step];
                for (int64_t n = 0; n < TILE_REGISTERS; n++) sums[r][n] += x * b[n];
            }
        }
        for (int r = 0; r < R; r++) {
            T *to = c + r * stride;
            if (own == columns) {
                for (int64_t n = 0; n < TILE_REGISTERS; n++) {
                    if (add) sums[r][n] += load(to + n * lanes);
                    std::memcpy(to + n * lanes, &sums[r][n], REGISTER_BYTES);
                }
                continue;
            }
            T line[columns];
            std::memcpy(line, sums[r], sizeof line);
            for (int64_t j = 0; j < own; j++) to[j] = add ? to[j] + line[j] : line[j];
        }
    }

    // All of b, panel after panel.
    template <typename S>
    static void pack_all(View<S> b, int64_t depth, int64_t width, T *to) {
        for (int64_t begin = 0; begin < width; begin += columns)
            pack(b, depth, begin, width, to + begin * depth);
    }

    // Rows of a, `row` apart, times panels that are `apart` apart.
    //
    // lower  how many columns the first row wants, each further row one more; the last may be none
    static void sweep(const T *a, int64_t row, int64_t step, int64_t rows, const T *packed,
                      int64_t apart, int64_t depth, int64_t width, T *c, int64_t stride, bool add,
                      int64_t lower = INT64_MAX / 2) {
        for (int64_t i = 0; i < rows; i += TILE_ROWS) {
            const T *tile = a + i * row;
            int64_t high = std::min(TILE_ROWS, rows - i), most = std::min(width, lower + i + high);
            for (int64_t left = 0; left < most; left += columns) {
                const T *panel = packed + left / columns * apart;
                int64_t own = std::min(columns, width - left);
                T *to = c + i * stride + left;
                if (high == TILE_ROWS) {
                    multiply<TILE_ROWS>(tile, row, step, panel, depth, to, stride, own, add);
                    continue;
                }
                for (int64_t r = 0; r < high; r++)
                    multiply<1>(tile + r * row, row, step, panel, depth, to + r * stride, stride,
                                own, add);
            }
        }
    }
};

// c (rows, width) = a (rows, depth) times b (depth, width), or that added to c.
//
// workers  threads, if they are worth it
// lower    only what lies below the diagonal, and on it, is wanted; some above is written, too
template <typename T>
void product(View<T> a, View<T> b, T *c, int64_t stride, int64_t rows, int64_t width, int64_t depth,
             bool add = false, int workers = 1, bool lower = false) {
    using Of = Tiles<T>;
    constexpr int64_t GROUP = TILE_ROWS * TILE_GROUP;
    int64_t parts = std::max<int64_t>(1, (depth + MOST_DEPTH - 1) / MOST_DEPTH);
    int64_t most = (depth + parts - 1) / parts;
    Scratch<T> scratch;
    T *packed = scratch.take(Of::packed_size(most, width));
    bool alone = workers < 2 || rows * width * depth < WORTH_THREADS;
#pragma omp parallel num_threads(workers) if (!alone)
    {
        Scratch<T> own;
        T *turned = a.row == 1 && a.column != 1 ? own.take(GROUP * most) : nullptr;
        for (int64_t part = 0; part < parts; part++) {
            int64_t begin = part * most, deep = std::min(most, depth - begin);
            View<T> here{b.at + begin * b.row, b.row, b.column};
#pragma omp for schedule(static)
            for (int64_t left = 0; left < width; left += Of::columns)
                Of::pack(here, deep, left, width, packed + left * deep);
#pragma omp for schedule(static)
            for (int64_t first = 0; first < rows; first += GROUP) {
                int64_t high = std::min(GROUP, rows - first);
                const T *from = a.at + first * a.row + begin * a.column;
                int64_t row = a.row, step = a.column;
                if (turned) {
                    for (int64_t k = 0; k < deep; k++) {
                        const T *line = from + k * step;
                        for (int64_t i = 0; i < high; i += 64 / sizeof(T))
                            __builtin_prefetch(line + 8 * step + i);
                        std::copy_n(line, high, turned + k * GROUP);
                    }
                    from = turned, row = 1, step = GROUP;
                }
                Of::sweep(from, row, step, high, packed, Of::columns * deep, deep, width,
                          c + first * stride, stride, add || part > 0,
                          lower ? first : INT64_MAX / 2);
            }
        }
    }
}

}  // namespace
