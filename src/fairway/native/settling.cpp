// Rounding of evaluate/rounding.py in one pass over memory: the same numbers as its plain twins, but
// for the last bit of a logit in steps, which a margin covers.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr double ROUND = 1.5 * 4503599627370496.0;  // adding and taking away rounds to whole numbers
constexpr int64_t BLOCK = 1 << 11;                  // values that a thread takes at once
constexpr int SHIFT = 32;

struct Near {
    int64_t place;
    int8_t up;
};
thread_local std::vector<Near> found;

// 2 to the power of how much finer than the grid a number of that many steps is rounded. The exponent
// is read off its bits; that of zero is lower than any, which changes nothing.
inline double finer(double steps, int64_t significant, int64_t least) {
    uint64_t bits;
    std::memcpy(&bits, &steps, 8);
    int64_t exponent = static_cast<int64_t>(bits >> 52 & 0x7FF) - 1022;
    uint64_t power = static_cast<uint64_t>(1023 + significant - (exponent > least ? exponent : least)) << 52;
    double by;
    std::memcpy(&by, &power, 8);
    return by;
}

}  // namespace

extern "C" {

// Round values in place to multiples of 1 / scale beside offsets of a table of `period`; returns how
// many lie nearer to a boundary than a margin, in steps. `significant` below 0: all on one grid.
int64_t settle(double *values, int64_t size, double scale, const double *table, int64_t period,
               int64_t at, double dither, int64_t significant, int64_t least, double margin) {
    int64_t blocks = (size + BLOCK - 1) / BLOCK;
    std::vector<std::vector<Near>> by_block(blocks);
    bool even = significant < 0;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t first = block * BLOCK, number = std::min(BLOCK, size - first);
        double *part = values + first, rounded[BLOCK];
        const double *offsets = table + at + first % period;  // twice as long as its period
        auto by = [&](double steps) { return even ? 1.0 : finer(steps, significant, least); };
        int64_t close = 0;
#pragma omp simd reduction(+ : close)
        for (int64_t i = 0; i < number; i++) {
            double steps = part[i] * scale, finest = by(steps);
            double exact = steps * finest + dither * offsets[i], whole = (exact + ROUND) - ROUND;
            close += std::fabs(exact - whole) + finest * margin > 0.5;
            rounded[i] = whole / (scale * finest);
        }
        for (int64_t i = 0; close && i < number; i++) {
            double steps = part[i] * scale, finest = by(steps);
            double exact = steps * finest + dither * offsets[i], whole = (exact + ROUND) - ROUND;
            if (std::fabs(exact - whole) + finest * margin > 0.5)
                by_block[block].push_back({first + i, static_cast<int8_t>(whole > exact)});
        }
        std::memcpy(part, rounded, number * sizeof(double));
    }
    found.clear();
    for (const std::vector<Near> &one : by_block) found.insert(found.end(), one.begin(), one.end());
    return static_cast<int64_t>(found.size());
}

// Those of the last call, in order.
void settle_near(int64_t *places, int8_t *ups) {
    for (size_t i = 0; i < found.size(); i++) places[i] = found[i].place, ups[i] = found[i].up;
}

// Logits (rows, vocab) to where slices end, in units of a table that begins `lowest` steps below the
// top; near[row]: 1 where a logit lies nearer to a boundary than a margin, in steps, and 2 where one
// is not finite or of `most` steps. Returns how many rows have either.
int64_t settled_ends(const double *logits, int64_t rows, int64_t vocab, double per_nat, double margin,
                  double most, const int32_t *units, int64_t lowest, int64_t one, int64_t *ends,
                  int8_t *near) {
    int64_t flagged = 0;
#pragma omp parallel if (rows > 8) reduction(+ : flagged)
    {
        std::vector<double> kept(vocab);
        std::vector<int32_t> places(vocab);
        double *steps = kept.data();
        int32_t *at = places.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const double *from = logits + row * vocab;
            double top = -INFINITY, furthest = 0.0;
            int64_t odd = 0;
#pragma omp simd reduction(max : top, furthest) reduction(+ : odd)
            for (int64_t v = 0; v < vocab; v++) {
                double exact = from[v] * per_nat, whole = (exact + ROUND) - ROUND;
                double off = std::fabs(exact - whole);
                steps[v] = whole;
                odd += !(off <= 1.0);  // not a number, or beyond whole numbers
                top = whole > top ? whole : top;
                furthest = off > furthest ? off : furthest;
            }
            near[row] = static_cast<int8_t>(odd || !(std::fabs(top) < most) ? 2 : furthest > 0.5 - margin);
            flagged += near[row] != 0;
            if (near[row] == 2) continue;
            double bottom = top - static_cast<double>(lowest);
#pragma omp simd
            for (int64_t v = 0; v < vocab; v++)
                at[v] = static_cast<int32_t>((steps[v] > bottom ? steps[v] : bottom) - bottom);
            int64_t *to = ends + row * vocab, sum = 0;
            for (int64_t v = 0; v < vocab; v++) {
                sum += units[at[v]];
                to[v] = sum;
            }
            int64_t share = one / sum;
#pragma omp simd
            for (int64_t v = 0; v < vocab; v++) to[v] = ((to[v] * share) >> SHIFT) + v + 1;
        }
    }
    return flagged;
}

}  // extern "C"
