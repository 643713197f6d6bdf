// One token of every row through a whole model, with cached keys and values: the decode step of
// model/decode_step.py. What it computes is said by its plain twin, GPT.forward; the structures
// mirror those of the Python file, field by field, all of eight bytes.
//
// Each sum is taken in one order, whatever the number of rows and threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr double EPS = 1.1920928955078125e-07;  // float32's, which the model adds in float64, too
constexpr double LEAST_LENGTH = 1e-12;          // below which a direction is not divided by it
constexpr int64_t WORTH_THREADS = 1 << 18;      // products, below which one thread is faster
constexpr uint32_t MULTIPLIERS[] = {36313, 27191, 48271};
enum Form { SERIAL = 0, SHARED = 1, LANES = 2 };
thread_local int workers = 1;

template <typename T> struct Adapter {
    const T *down, *up;  // (rows, rank, in), (rows, out, rank); null: there is none
};

template <typename T> struct Ngram {
    int64_t order, buckets, width;
    const T *table, *project, *scale;
};

template <typename T> struct Pass {
    int64_t form, exclusive, skip_from, skip_to, hidden, gate_window;
    double read_scale, gate_scale, slope;
    const T *query, *key, *value, *output, *gain, *gate, *attention_scale, *mlp_scale, *mix;
    const T *up, *mlp_gate, *down, *carry, *route, *skip_weight, *skip_gate, *value_scale;
    T *keys, *values;  // (rows, kv_heads, context, head_dim)
    Adapter<T> on_query, on_key, on_value, on_output, on_mlp;
};

template <typename T> struct Model {
    int64_t rows, context, vocab, dim, embed_dim, heads, kv_heads, head_dim, rotary;
    int64_t bos, within_documents, smear, smear_window, smear_across, value_width, rank;
    int64_t num_ngrams, num_passes, num_skips;
    double softcap, adapter_scale;
    const T *embed, *embed_up, *head_down, *head, *smear_gate, *smear_strength;
    const T *value_table, *value_project, *value_scale, *cos, *sin, *cap_positive, *cap_negative;
    int64_t *tokens;  // (rows, context)
    T *before;        // (rows, embed_dim)
    Adapter<T> on_head;
    const Ngram<T> *ngrams;
    const Pass<T> *passes;
};

inline double exponential(double x) {  // within two units in the last place; vectorizes
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

inline double sigmoid(double x) { return 1.0 / (1.0 + exponential(-x)); }

template <typename T> struct Wide {
    typedef T vec __attribute__((vector_size(64)));
    static constexpr int64_t lanes = 64 / sizeof(T);

    static vec load(const T *from) {
        vec v;
        std::memcpy(&v, from, 64);
        return v;
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
        if constexpr (sizeof(T) == 8) return q[0] + q[1];
        return (q[0] + q[2]) + (q[1] + q[3]);
    }
};

// to[b][r] = weights[r] . x[b] for R rows of weights and B vectors, all of them `width` long.
template <typename T, int R, int B>
inline void dots(const T *weights, const T *x, int64_t width, T *to, int64_t stride) {
    using W = Wide<T>;
    typename W::vec sums[R][B] = {};
    int64_t whole = width / W::lanes * W::lanes;
    for (int64_t k = 0; k < whole; k += W::lanes) {
        typename W::vec those[B];
        for (int b = 0; b < B; b++) those[b] = W::load(x + b * width + k);
        for (int r = 0; r < R; r++) {
            typename W::vec w = W::load(weights + r * width + k);
            for (int b = 0; b < B; b++) sums[r][b] += w * those[b];
        }
    }
    for (int r = 0; r < R; r++)
        for (int b = 0; b < B; b++) {
            T total = W::sum(sums[r][b]);
            for (int64_t k = whole; k < width; k++) total += weights[r * width + k] * x[b * width + k];
            to[b * stride + r] = total;
        }
}

template <typename T, int R>
inline void rows_of(const T *weights, const T *x, int64_t batch, int64_t width, T *to,
                    int64_t stride) {
    int64_t b = 0;
    for (; b + 4 <= batch; b += 4) dots<T, R, 4>(weights, x + b * width, width, to + b * stride, stride);
    for (; b < batch; b++) dots<T, R, 1>(weights, x + b * width, width, to + b * stride, stride);
}

// x (batch, in) -> to (batch, out) for weights (out, in).
template <typename T>
void multiply(const T *weights, const T *x, int64_t batch, int64_t out, int64_t in, T *to) {
    constexpr int64_t R = 4;
    int64_t blocks = out / R;
#pragma omp parallel for schedule(static) num_threads(workers) if (out * in * batch > WORTH_THREADS)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t r = block * R;
        rows_of<T, R>(weights + r * in, x, batch, in, to + r, out);
    }
    for (int64_t r = blocks * R; r < out; r++) rows_of<T, 1>(weights + r * in, x, batch, in, to + r, out);
}

template <typename T> T dot(const T *a, const T *b, int64_t width) {
    T found;
    dots<T, 1, 1>(a, b, width, &found, 1);
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

// What the model needs beside its weights, for one call.
template <typename T> class Step {
  public:
    Step(const Model<T> &model, int64_t position) : m(model), position(position) {}

    void run(bool has_before, T *logits) {
        int64_t wide = m.rows * m.dim;
        x = buffer(wide), first = buffer(wide), mixed = buffer(wide), read = buffer(wide);
        attended = buffer(wide), bent = buffer(wide), lane = buffer(wide), y = buffer(wide);
        q = buffer(wide), k = buffer(m.rows * kv_dim()), v = buffer(m.rows * kv_dim());
        scores = buffer(m.context);
        skips.resize(m.num_skips);
        for (T *&skip : skips) skip = buffer(wide);
        embed(has_before);
        std::copy(x, x + wide, first);
        if (m.value_table) embed_values();
        bool in_lanes = false;
        for (int64_t i = 0; i < m.num_passes; i++) {
            const Pass<T> &pass = m.passes[i];
            if (pass.form == LANES && !in_lanes) {
                std::copy(x, x + wide, lane);
                in_lanes = true;
            }
            if (pass.skip_from >= 0) join_skip(pass);
            run_pass(pass);
            if (pass.skip_to >= 0) std::copy(x, x + wide, skips[pass.skip_to]);
        }
        if (in_lanes)
#pragma omp simd
            for (int64_t i = 0; i < wide; i++) x[i] = T(0.5) * (x[i] + lane[i]);
        for (int64_t b = 0; b < m.rows; b++) normalize(x + b * m.dim, m.dim, 1.0, x + b * m.dim);
        const T *seen = x;
        if (m.head_down) {
            T *narrow = buffer(m.rows * m.embed_dim);
            multiply(m.head_down, x, m.rows, m.embed_dim, m.dim, narrow);
            seen = narrow;
        }
        multiply(m.head, seen, m.rows, m.vocab, m.embed_dim, logits);
        add_adapter(m.on_head, seen, m.embed_dim, m.vocab, nullptr, logits);
        cap(logits, m.rows * m.vocab);
    }

  private:
    const Model<T> &m;
    int64_t position;
    std::vector<std::vector<T>> kept;
    std::vector<T *> skips;
    T *x, *first, *mixed, *read, *attended, *bent, *lane, *y, *q, *k, *v, *scores;
    T *values = nullptr;

    int64_t kv_dim() const { return m.kv_heads * m.head_dim; }

    T *buffer(int64_t size) {
        kept.emplace_back(size);
        return kept.back().data();
    }

    void embed(bool has_before) {
        int64_t width = m.embed_dim;
        T *to = m.embed_up ? buffer(m.rows * width) : x;
        for (int64_t b = 0; b < m.rows; b++) {
            const int64_t *seen = m.tokens + b * m.context;
            T *at = to + b * width, *before = m.before + b * width;
            std::copy_n(m.embed + seen[position] * width, width, at);
            for (int64_t n = 0; n < m.num_ngrams; n++) add_ngram(m.ngrams[n], seen, at);
            if (m.smear == 0) std::copy_n(at, width, before);
            if (m.smear == 2) {
                T gate = static_cast<T>(sigmoid(dot(m.smear_gate, at, m.smear_window)));
                bool same = seen[position] != m.bos || m.smear_across;
                T share = has_before && same ? m.smear_strength[0] * gate : T(0);
                for (int64_t i = 0; i < width; i++) {
                    T raw = at[i];
                    if (share != T(0)) at[i] += share * before[i];
                    before[i] = raw;
                }
            }
            normalize(at, width, 1.0, at);
            if (m.smear == 1)
                for (int64_t i = 0; i < width; i++) {
                    T raw = at[i], last = has_before ? before[i] : T(0);
                    at[i] = raw + static_cast<T>(sigmoid(m.smear_gate[i])) * (last - raw);
                    before[i] = raw;
                }
        }
        if (m.embed_up) multiply(m.embed_up, to, m.rows, m.dim, width, x);
    }

    void add_ngram(const Ngram<T> &ngram, const int64_t *seen, T *to) {
        int64_t bucket = ngram.buckets - 1;
        if (position >= ngram.order - 1) {
            uint32_t mixed_bits = 0;
            for (int64_t back = 0; back < ngram.order; back++)
                mixed_bits ^= static_cast<uint32_t>(seen[position - back]) * MULTIPLIERS[back];
            int64_t found = static_cast<int32_t>(mixed_bits) % (ngram.buckets - 1);
            bucket = found < 0 ? found + ngram.buckets - 1 : found;
        }
        const T *row = ngram.table + bucket * ngram.width;
        std::vector<T> projected;
        if (ngram.project) {
            projected.resize(m.embed_dim);
            multiply(ngram.project, row, 1, m.embed_dim, ngram.width, projected.data());
            row = projected.data();
        }
        for (int64_t i = 0; i < m.embed_dim; i++) to[i] += row[i] * ngram.scale[0];
    }

    void embed_values() {
        values = buffer(m.rows * kv_dim());
        for (int64_t b = 0; b < m.rows; b++) {
            const T *row = m.value_table + m.tokens[b * m.context + position] * m.value_width;
            T *to = values + b * kv_dim();
            if (m.value_project)
                multiply(m.value_project, row, 1, kv_dim(), m.value_width, to);
            else
                std::copy_n(row, kv_dim(), to);
            for (int64_t i = 0; i < kv_dim(); i++) to[i] *= m.value_scale[0];
        }
    }

    void join_skip(const Pass<T> &pass) {
        const T *from = skips[pass.skip_from];
        std::vector<T> opened(m.dim, T(1));
        if (pass.skip_gate) {
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++)
                opened[i] = static_cast<T>(sigmoid(pass.skip_gate[i]));
        }
        for (int64_t b = 0; b < m.rows; b++)
            for (int64_t i = 0; i < m.dim; i++) {
                T skip = pass.skip_weight[i] * from[b * m.dim + i], &to = x[b * m.dim + i];
                to = pass.skip_gate ? skip + opened[i] * (to - skip) : to + skip;
            }
    }

    void run_pass(const Pass<T> &pass) {
        int64_t wide = m.rows * m.dim;
        for (int64_t b = 0; b < m.rows; b++) {
            T *from = x + b * m.dim, *other = first + b * m.dim, *to = mixed + b * m.dim;
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++)
                to[i] = pass.mix ? pass.mix[i] * from[i] + pass.mix[m.dim + i] * other[i] : from[i];
        }
        read_stream(mixed, pass);
        attend(pass);
        if (pass.form == SHARED) {
            run_mlp(pass);
#pragma omp simd
            for (int64_t i = 0; i < wide; i++) x[i] = mixed[i] + attended[i] + bent[i];
            return;
        }
        if (pass.form == SERIAL) {
#pragma omp simd
            for (int64_t i = 0; i < wide; i++) x[i] = mixed[i] + attended[i];
            read_stream(x, pass);
            run_mlp(pass);
#pragma omp simd
            for (int64_t i = 0; i < wide; i++) x[i] += bent[i];
            return;
        }
        read_stream(lane, pass);
        run_mlp(pass);
        const T *carry = pass.carry, *route = pass.route;
        for (int64_t i = 0; i < wide; i++) {
            x[i] = carry[0] * x[i] + route[0] * attended[i] + route[2] * bent[i];
            lane[i] = carry[1] * lane[i] + route[1] * attended[i] + route[3] * bent[i];
        }
    }

    void read_stream(const T *from, const Pass<T> &pass) {
        for (int64_t b = 0; b < m.rows; b++)
            normalize(from + b * m.dim, m.dim, pass.read_scale, read + b * m.dim);
    }

    void attend(const Pass<T> &pass) {
        multiply(pass.query, read, m.rows, m.dim, m.dim, q);
        multiply(pass.key, read, m.rows, kv_dim(), m.dim, k);
        multiply(pass.value, read, m.rows, kv_dim(), m.dim, v);
        add_adapter(pass.on_query, read, m.dim, m.dim, nullptr, q);
        add_adapter(pass.on_key, read, m.dim, kv_dim(), nullptr, k);
        add_adapter(pass.on_value, read, m.dim, kv_dim(), nullptr, v);
        if (pass.value_scale)
            for (int64_t i = 0; i < m.rows * kv_dim(); i++) v[i] += values[i] * pass.value_scale[0];
        for (int64_t b = 0; b < m.rows; b++) attend_row(pass, b);
        multiply(pass.output, y, m.rows, m.dim, m.dim, attended);
        scale_channels(pass.attention_scale, attended);
        add_adapter(pass.on_output, read, m.dim, m.dim, pass.attention_scale, attended);
    }

    void attend_row(const Pass<T> &pass, int64_t b) {
        int64_t width = m.head_dim, group = m.heads / m.kv_heads, begin = document_start(b);
        for (int64_t h = 0; h < m.kv_heads; h++) {
            T *head = k + b * kv_dim() + h * width;
            normalize(head, width, 1.0, head);
            rotate(head, 1.0);
            int64_t place = ((b * m.kv_heads + h) * m.context + position) * width;
            std::copy_n(head, width, pass.keys + place);
            std::copy_n(v + b * kv_dim() + h * width, width, pass.values + place);
        }
        for (int64_t h = 0; h < m.heads; h++) {
            T *head = q + b * m.dim + h * width, *to = y + b * m.dim + h * width;
            normalize(head, width, 1.0, head);
            rotate(head, pass.gain[h]);
            int64_t past = (b * m.kv_heads + h / group) * m.context * width;
            attend_head(head, pass.keys + past, pass.values + past, begin, to);
            if (pass.exclusive) exclude(to, v + b * kv_dim() + h / group * width);
            if (pass.gate) {
                T opened = dot(pass.gate + h * pass.gate_window, read + b * m.dim, pass.gate_window);
                T gate = static_cast<T>(sigmoid(pass.gate_scale * opened));
#pragma omp simd
                for (int64_t i = 0; i < width; i++) to[i] *= gate;
            }
        }
    }

    int64_t document_start(int64_t b) const {
        const int64_t *seen = m.tokens + b * m.context;
        int64_t begin = m.within_documents ? position : 0;
        while (begin > 0 && seen[begin] != m.bos) begin--;
        return begin;
    }

    void rotate(T *head, T gain) const {
        const T *cos = m.cos + position * m.rotary, *sin = m.sin + position * m.rotary;
        for (int64_t i = 0; i < m.rotary; i++) {
            T one = head[i], other = head[m.rotary + i];
            head[i] = one * cos[i] + other * sin[i];
            head[m.rotary + i] = other * cos[i] - one * sin[i];
        }
        for (int64_t i = 0; i < m.head_dim; i++) head[i] *= gain;
    }

    void attend_head(const T *head, const T *keys, const T *past, int64_t begin, T *to) {
        int64_t width = m.head_dim, count = position + 1 - begin;
        T by = T(1) / std::sqrt(static_cast<T>(width)), most = -INFINITY;
        rows_of_keys(keys + begin * width, head, count);
#pragma omp simd reduction(max : most)
        for (int64_t j = 0; j < count; j++) {
            scores[j] *= by;
            most = scores[j] > most ? scores[j] : most;
        }
#pragma omp simd
        for (int64_t j = 0; j < count; j++)
            scores[j] = static_cast<T>(exponential(static_cast<double>(scores[j] - most)));
        T total = T(0);
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < count; j++) total += scores[j];
        weigh(past + begin * width, scores, count, width, total, to);
    }

    void rows_of_keys(const T *keys, const T *head, int64_t count) {
        int64_t j = 0, width = m.head_dim;
        for (; j + 4 <= count; j += 4) dots<T, 4, 1>(keys + j * width, head, width, scores + j, 1);
        for (; j < count; j++) dots<T, 1, 1>(keys + j * width, head, width, scores + j, 1);
    }

    void exclude(T *to, const T *own) const {
        int64_t width = m.head_dim;
        T length = std::max(std::sqrt(dot(own, own, width)), static_cast<T>(LEAST_LENGTH));
        T along = dot(to, own, width) / length;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] -= along * (own[i] / length);
    }

    void run_mlp(const Pass<T> &pass) {
        std::vector<T> hidden(m.rows * pass.hidden);
        T *h = hidden.data(), slope = static_cast<T>(pass.slope);
        multiply(pass.up, read, m.rows, pass.hidden, m.dim, h);
        if (pass.mlp_gate) {
            std::vector<T> gates(hidden.size());
            T *g = gates.data();
            multiply(pass.mlp_gate, read, m.rows, pass.hidden, m.dim, g);
#pragma omp simd
            for (size_t i = 0; i < hidden.size(); i++) h[i] *= g[i] * static_cast<T>(sigmoid(g[i]));
        } else {
#pragma omp simd
            for (size_t i = 0; i < hidden.size(); i++) {
                T one = h[i] > T(0) ? h[i] : slope * h[i];
                h[i] = one * one;
            }
        }
        multiply(pass.down, h, m.rows, m.dim, pass.hidden, bent);
        scale_channels(pass.mlp_scale, bent);
        add_adapter(pass.on_mlp, read, m.dim, m.dim, pass.mlp_scale, bent);
    }

    void scale_channels(const T *scale, T *to) const {
        for (int64_t b = 0; b < m.rows; b++) {
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++) to[b * m.dim + i] *= scale[i];
        }
    }

    void add_adapter(const Adapter<T> &adapter, const T *from, int64_t in, int64_t out,
                     const T *scale, T *to) {
        if (!adapter.down) return;
        std::vector<T> low(m.rank);
        T by = static_cast<T>(m.adapter_scale);
        for (int64_t b = 0; b < m.rows; b++) {
            multiply(adapter.down + b * m.rank * in, from + b * in, 1, m.rank, in, low.data());
            const T *up = adapter.up + b * out * m.rank;
            for (int64_t o = 0; o < out; o++) {
                T more = by * dot(up + o * m.rank, low.data(), m.rank);
                to[b * out + o] += scale ? more * scale[o] : more;
            }
        }
    }

    void cap(T *logits, int64_t count) const {
        if (m.softcap == 0.0) return;
        double positive = m.cap_positive ? m.cap_positive[0] : m.softcap;
        double negative = m.cap_negative ? m.cap_negative[0] : m.softcap;
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            double z = logits[i], most = z > 0.0 ? positive : negative;
            // Through a power of -2 |z| nothing cancels but near zero, to about 1e-16 of `most`.
            double power = exponential(-2.0 * std::fabs(z) / most);
            double bend = most * (1.0 - power) / (1.0 + power);
            double capped = z < 0.0 ? -bend : bend;
            logits[i] = static_cast<T>(z == z ? capped : z);
        }
    }
};

// 0, or 1 where a token has no embedding: then nothing has changed.
template <typename T>
int64_t decode(const Model<T> &model, const int64_t *came, int64_t position, int64_t has_before,
               int64_t threads, T *logits) {
    for (int64_t b = 0; b < model.rows; b++)
        if (came[b] < 0 || came[b] >= model.vocab) return 1;
    for (int64_t b = 0; b < model.rows; b++) model.tokens[b * model.context + position] = came[b];
    workers = static_cast<int>(threads);
    Step<T>(model, position).run(has_before != 0, logits);
    return 0;
}

}  // namespace

extern "C" {

int64_t decode_float32(const Model<float> *model, const int64_t *came, int64_t position,
                       int64_t has_before, int64_t threads, float *logits) {
    return decode(*model, came, position, has_before, threads, logits);
}

int64_t decode_float64(const Model<double> *model, const int64_t *came, int64_t position,
                       int64_t has_before, int64_t threads, double *logits) {
    return decode(*model, came, position, has_before, threads, logits);
}
}
