// Some tokens of every row through a whole model, with keys and values kept: the step and the pass
// of model/decode_step.py. What they compute is said by their plain twin, GPT.forward.
//
// Each sum is taken in one order, whatever the number of rows and threads.

#include "vectors.h"

#include "decode_model.h"

namespace {

constexpr double LEAST_LENGTH = 1e-12;  // below which a direction is not divided by it
constexpr int64_t QUERIES = 64;         // that look at their past together
constexpr uint32_t MULTIPLIERS[] = {36313, 27191, 48271};
enum Form { SERIAL = 0, SHARED = 1, LANES = 2 };

// `count` tokens each of the rows from `first_row` on, from `position` on; of their logits those
// from place `start` on are wanted.
//
// packed  null where few vectors come, for which matrices are read as they lie
template <typename T> class Step {
  public:
    Step(const Model<T> &model, int64_t first_row, int64_t rows, int64_t position, int64_t count,
         int64_t start, const Packed<T> *packed)
        : m(model), first_row(first_row), rows(rows), position(position), count(count),
          start(start), packed(packed) {}

    void run(bool has_before, T *logits) {
        int64_t wide = num() * m.dim;
        x = take(wide), first = take(wide), mixed = take(wide), read = take(wide);
        attended = take(wide), bent = take(wide), lane = take(wide), y = take(wide);
        q = take(wide), k = take(num() * kv_dim()), v = take(num() * kv_dim());
        scores = take(packed ? QUERIES * m.context : m.context);
        skips.resize(m.num_skips);
        for (T *&skip : skips) skip = take(wide);
        embed(has_before);
        std::copy(x, x + wide, first);
        if (m.value_table) embed_values();
        for (int64_t i = 0; i < m.num_passes; i++) {
            const Pass<T> &pass = m.passes[i];
            if (pass.form == LANES && !in_lanes) {
                std::copy(x, x + num() * m.dim, lane);
                in_lanes = true;
            }
            if (pass.skip_from >= 0) join_skip(pass);
            run_pass(pass, i == m.num_passes - 1);
            if (pass.skip_to >= 0) std::copy(x, x + num() * m.dim, skips[pass.skip_to]);
        }
        wide = num() * m.dim;
        if (in_lanes)
#pragma omp simd
            for (int64_t i = 0; i < wide; i++) x[i] = T(0.5) * (x[i] + lane[i]);
        for (int64_t n = 0; n < num(); n++) normalize(x + n * m.dim, m.dim, 1.0, x + n * m.dim);
        const T *seen = x;
        if (m.head_down) {
            T *narrow = take(num() * m.embed_dim);
            apply(m.head_down, x, m.embed_dim, m.dim, narrow);
            seen = narrow;
        }
        apply(m.head, seen, m.vocab, m.embed_dim, logits);
        add_adapter(m.on_head, seen, m.embed_dim, m.vocab, nullptr, logits);
        cap(logits, num() * m.vocab);
    }

  private:
    const Model<T> &m;
    int64_t first_row, rows, position, count, start;
    const Packed<T> *packed;
    Scratch<T> scratch;
    std::vector<T *> skips;
    bool in_lanes = false;
    T *x, *first, *mixed, *read, *attended, *bent, *lane, *y, *q, *k, *v, *scores;
    T *values = nullptr;

    int64_t num() const { return rows * count; }
    int64_t kv_dim() const { return m.kv_heads * m.head_dim; }
    T *take(int64_t size) { return scratch.take(size); }
    const int64_t *seen_by(int64_t b) const { return m.tokens + (first_row + b) * m.context; }

    // x (num, in) -> to (num, out) for weights (out, in).
    void apply(const T *weights, const T *from, int64_t out, int64_t in, T *to) const {
        if (!packed && m.narrow) return multiply(narrow(weights), from, num(), out, in, to);
        if (!packed) return multiply(weights, from, num(), out, in, to);
        const T *panels = packed->find(weights);
        int64_t apart = Tiles<T>::columns * in, group = TILE_ROWS * TILE_GROUP;
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
        for (int64_t n = 0; n < num(); n += group)
            Tiles<T>::sweep(from + n * in, in, 1, std::min(group, num() - n), panels, apart, in, out,
                            to + n * out, out, false);
    }

    void embed(bool has_before) {
        int64_t width = m.embed_dim;
        T *to = m.embed_up ? take(num() * width) : x;
        for (int64_t b = 0; b < rows; b++)
            for (int64_t t = 0; t < count; t++)
                embed_token(seen_by(b), position + t, has_before || t > 0,
                            m.before + (first_row + b) * width, to + (b * count + t) * width);
        if (m.embed_up) apply(m.embed_up, to, m.dim, width, x);
    }

    void embed_token(const int64_t *seen, int64_t place, bool has_before, T *before, T *at) {
        int64_t width = m.embed_dim;
        std::copy_n(m.embed + seen[place] * width, width, at);
        for (int64_t n = 0; n < m.num_ngrams; n++) add_ngram(m.ngrams[n], seen, place, at);
        if (m.smear == 0) std::copy_n(at, width, before);
        if (m.smear == 2) {
            T gate = static_cast<T>(sigmoid(dot(m.smear_gate, at, m.smear_window)));
            bool same = seen[place] != m.bos || m.smear_across;
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

    void add_ngram(const Ngram<T> &ngram, const int64_t *seen, int64_t place, T *to) {
        int64_t bucket = ngram.buckets - 1;
        if (place >= ngram.order - 1) {
            uint32_t mixed_bits = 0;
            for (int64_t back = 0; back < ngram.order; back++)
                mixed_bits ^= static_cast<uint32_t>(seen[place - back]) * MULTIPLIERS[back];
            int64_t found = static_cast<int32_t>(mixed_bits) % (ngram.buckets - 1);
            bucket = found < 0 ? found + ngram.buckets - 1 : found;
        }
        const T *row = ngram.table + bucket * ngram.width;
        Scratch<T> own;
        if (ngram.project) {
            T *projected = own.take(m.embed_dim);
            multiply(ngram.project, row, 1, m.embed_dim, ngram.width, projected);
            row = projected;
        }
        for (int64_t i = 0; i < m.embed_dim; i++) to[i] += row[i] * ngram.scale[0];
    }

    void embed_values() {
        values = take(num() * kv_dim());
        for (int64_t n = 0; n < num(); n++) {
            int64_t token = seen_by(n / count)[position + n % count];
            const T *row = m.value_table + token * m.value_width;
            T *to = values + n * kv_dim();
            if (m.value_project)
                multiply(m.value_project, row, 1, kv_dim(), m.value_width, to);
            else
                std::copy_n(row, kv_dim(), to);
            for (int64_t i = 0; i < kv_dim(); i++) to[i] *= m.value_scale[0];
        }
    }

    void join_skip(const Pass<T> &pass) {
        const T *from = skips[pass.skip_from];
        Scratch<T> own;
        T *opened = own.take(m.dim);
        if (pass.skip_gate) {
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++)
                opened[i] = static_cast<T>(sigmoid(pass.skip_gate[i]));
        }
        for (int64_t n = 0; n < num(); n++)
            for (int64_t i = 0; i < m.dim; i++) {
                T skip = pass.skip_weight[i] * from[n * m.dim + i], &to = x[n * m.dim + i];
                to = pass.skip_gate ? skip + opened[i] * (to - skip) : to + skip;
            }
    }

    void run_pass(const Pass<T> &pass, bool is_last) {
        for (int64_t n = 0; n < num(); n++) {
            T *from = x + n * m.dim, *other = first + n * m.dim, *to = mixed + n * m.dim;
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++)
                to[i] = pass.mix ? pass.mix[i] * from[i] + pass.mix[m.dim + i] * other[i] : from[i];
        }
        read_stream(mixed, pass);
        keep_keys(pass);
        if (is_last) keep_wanted();
        attend(pass);
        int64_t wide = num() * m.dim;
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

    // Go on with the places from `start` on alone: of the others nothing but keys is wanted.
    void keep_wanted() {
        if (!start) return;
        int64_t fewer = count - start;
        for (T *all : {x, mixed, read, lane})
            for (int64_t b = 0; b < rows; b++)
                std::copy_n(all + (b * count + start) * m.dim, fewer * m.dim, all + b * fewer * m.dim);
        position += start, count = fewer, start = 0;
    }

    void read_stream(const T *from, const Pass<T> &pass) {
        for (int64_t n = 0; n < num(); n++)
            normalize(from + n * m.dim, m.dim, pass.read_scale, read + n * m.dim);
    }

    // Where a row's keys or values of one head begin among those kept.
    int64_t kept(int64_t b, int64_t h) const {
        return ((first_row + b) * m.kv_heads + h) * m.context * m.head_dim;
    }

    void keep_keys(const Pass<T> &pass) {
        int64_t width = m.head_dim;
        apply(pass.key, read, kv_dim(), m.dim, k);
        apply(pass.value, read, kv_dim(), m.dim, v);
        add_adapter(pass.on_key, read, m.dim, kv_dim(), nullptr, k);
        add_adapter(pass.on_value, read, m.dim, kv_dim(), nullptr, v);
        if (pass.value_scale)
            for (int64_t i = 0; i < num() * kv_dim(); i++) v[i] += values[i] * pass.value_scale[0];
        for (int64_t n = 0; n < num(); n++)
            for (int64_t h = 0; h < m.kv_heads; h++) {
                T *head = k + n * kv_dim() + h * width;
                int64_t place = position + n % count, at = kept(n / count, h) + place * width;
                normalize(head, width, 1.0, head);
                rotate(head, place, 1.0);
                std::copy_n(head, width, pass.keys + at);
                std::copy_n(v + n * kv_dim() + h * width, width, pass.values + at);
            }
    }

    void attend(const Pass<T> &pass) {
        int64_t width = m.head_dim, group = m.heads / m.kv_heads;
        apply(pass.query, read, m.dim, m.dim, q);
        add_adapter(pass.on_query, read, m.dim, m.dim, nullptr, q);
        for (int64_t n = 0; n < num(); n++)
            for (int64_t h = 0; h < m.heads; h++) {
                T *head = q + n * m.dim + h * width;
                normalize(head, width, 1.0, head);
                rotate(head, position + n % count, pass.gain[h]);
            }
        for (int64_t b = 0; b < rows; b++)
            for (int64_t h = 0; h < m.heads; h++) {
                int64_t past = kept(b, h / group), at = b * count * m.dim + h * width;
                if (packed)
                    attend_together(b, q + at, pass.keys + past, pass.values + past, y + at);
                else
                    attend_head(q + at, pass.keys + past, pass.values + past, document_start(b, position), y + at);
            }
        for (int64_t n = 0; n < num(); n++)
            for (int64_t h = 0; h < m.heads; h++) finish_head(pass, n, h);
        apply(pass.output, y, m.dim, m.dim, attended);
        scale_channels(pass.attention_scale, attended);
        add_adapter(pass.on_output, read, m.dim, m.dim, pass.attention_scale, attended);
    }

    void finish_head(const Pass<T> &pass, int64_t n, int64_t h) {
        int64_t width = m.head_dim, group = m.heads / m.kv_heads;
        T *to = y + n * m.dim + h * width;
        if (pass.exclusive)
            exclude(to, pass.values + kept(n / count, h / group) + (position + n % count) * width);
        if (!pass.gate) return;
        T opened = dot(pass.gate + h * pass.gate_window, read + n * m.dim, pass.gate_window);
        T gate = static_cast<T>(sigmoid(pass.gate_scale * opened));
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] *= gate;
    }

    int64_t document_start(int64_t b, int64_t begin) const {
        if (!m.within_documents) return 0;
        const int64_t *seen = seen_by(b);
        while (begin > 0 && seen[begin] != m.bos) begin--;
        return begin;
    }

    void rotate(T *head, int64_t place, T gain) const {
        const T *cos = m.cos + place * m.rotary, *sin = m.sin + place * m.rotary;
        for (int64_t i = 0; i < m.rotary; i++) {
            T one = head[i], other = head[m.rotary + i];
            head[i] = one * cos[i] + other * sin[i];
            head[m.rotary + i] = other * cos[i] - one * sin[i];
        }
        for (int64_t i = 0; i < m.head_dim; i++) head[i] *= gain;
    }

    void attend_head(const T *head, const T *keys, const T *past, int64_t begin, T *to) {
        int64_t width = m.head_dim, number = position + 1 - begin;
        rows_of_keys(keys + begin * width, head, number);
        T total = weights_of(scores, number);
        weigh(past + begin * width, scores, number, width, total, to);
    }

    // Scores to the exponentials of their distance to the largest; returns the sum of those.
    T weights_of(T *of, int64_t number) const {
        T by = T(1) / std::sqrt(static_cast<T>(m.head_dim)), most = -INFINITY;
#pragma omp simd reduction(max : most)
        for (int64_t j = 0; j < number; j++) {
            of[j] *= by;
            most = of[j] > most ? of[j] : most;
        }
#pragma omp simd
        for (int64_t j = 0; j < number; j++)
            of[j] = static_cast<T>(exponential(static_cast<double>(of[j] - most)));
        T total = T(0);
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < number; j++) total += of[j];
        return total;
    }

    void rows_of_keys(const T *keys, const T *head, int64_t number) {
        int64_t j = 0, width = m.head_dim;
        for (; j + 4 <= number; j += 4) dots<4, 1>(keys + j * width, head, width, scores + j, 1);
        for (; j < number; j++) dots<1, 1>(keys + j * width, head, width, scores + j, 1);
    }

    // All queries of one row and head, some of them at once.
    void attend_together(int64_t b, const T *queries, const T *keys, const T *past, T *to) {
        using Of = Tiles<T>;
        int64_t width = m.head_dim, all = position + count;
        Scratch<T> own;
        T *turned = own.take(Of::packed_size(width, all)), *lying = own.take(Of::packed_size(all, width));
        Of::pack_all(View<T>{keys, 1, width}, width, all, turned);
        Of::pack_all(View<T>{past, width, 1}, all, width, lying);
        for (int64_t from = 0; from < count; from += QUERIES) {
            int64_t number = std::min(QUERIES, count - from), end = position + from + number;
            Of::sweep(queries + from * m.dim, m.dim, 1, number, turned, Of::columns * width, width,
                      end, scores, end, false);
            T totals[QUERIES];
            for (int64_t r = 0; r < number; r++) {
                int64_t place = position + from + r, begin = document_start(b, place);
                T *of = scores + r * end;
                totals[r] = weights_of(of + begin, place + 1 - begin);
                std::fill(of, of + begin, T(0));
                std::fill(of + place + 1, of + end, T(0));
            }
            Of::sweep(scores, end, 1, number, lying, Of::columns * all, end, width,
                      to + from * m.dim, m.dim, false);
            for (int64_t r = 0; r < number; r++) {
#pragma omp simd
                for (int64_t i = 0; i < width; i++) to[(from + r) * m.dim + i] /= totals[r];
            }
        }
    }

    void exclude(T *to, const T *own) const {
        int64_t width = m.head_dim;
        T length = std::max(std::sqrt(dot(own, own, width)), static_cast<T>(LEAST_LENGTH));
        T along = dot(to, own, width) / length;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] -= along * (own[i] / length);
    }

    void run_mlp(const Pass<T> &pass) {
        Scratch<T> own;
        int64_t size = num() * pass.hidden;
        T *h = own.take(size), slope = static_cast<T>(pass.slope);
        apply(pass.up, read, pass.hidden, m.dim, h);
        if (pass.mlp_gate) {
            T *g = own.take(size);
            apply(pass.mlp_gate, read, pass.hidden, m.dim, g);
#pragma omp simd
            for (int64_t i = 0; i < size; i++) h[i] *= g[i] * static_cast<T>(sigmoid(g[i]));
        } else {
#pragma omp simd
            for (int64_t i = 0; i < size; i++) {
                T one = h[i] > T(0) ? h[i] : slope * h[i];
                h[i] = one * one;
            }
        }
        apply(pass.down, h, m.dim, pass.hidden, bent);
        scale_channels(pass.mlp_scale, bent);
        add_adapter(pass.on_mlp, read, m.dim, m.dim, pass.mlp_scale, bent);
    }

    void scale_channels(const T *scale, T *to) const {
        for (int64_t n = 0; n < num(); n++) {
#pragma omp simd
            for (int64_t i = 0; i < m.dim; i++) to[n * m.dim + i] *= scale[i];
        }
    }

    void add_adapter(const Adapter<T> &adapter, const T *from, int64_t in, int64_t out,
                     const T *scale, T *to) {
        if (!adapter.down) return;
        Scratch<T> own;
        T *low = own.take(count * m.rank), *more = own.take(count * out);
        T by = static_cast<T>(m.adapter_scale);
        for (int64_t b = 0; b < rows; b++) {
            int64_t row = first_row + b;
            multiply(adapter.down + row * m.rank * in, from + b * count * in, count, m.rank, in, low);
            multiply(adapter.up + row * out * m.rank, low, count, out, m.rank, more);
            for (int64_t n = 0; n < count; n++)
                for (int64_t o = 0; o < out; o++) {
                    T one = by * more[n * out + o];
                    to[(b * count + n) * out + o] += scale ? one * scale[o] : one;
                }
        }
    }

    void cap(T *logits, int64_t size) const {
        if (m.softcap == 0.0) return;
        double positive = m.cap_positive ? m.cap_positive[0] : m.softcap;
        double negative = m.cap_negative ? m.cap_negative[0] : m.softcap;
#pragma omp simd
        for (int64_t i = 0; i < size; i++) {
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
int64_t decode(const Model<T> &model, const int64_t *came, int64_t count, int64_t position,
               int64_t has_before, int64_t start, int64_t threads, T *logits) {
    for (int64_t i = 0; i < model.rows * count; i++)
        if (came[i] < 0 || came[i] >= model.vocab) return 1;
    for (int64_t b = 0; b < model.rows; b++)
        std::copy_n(came + b * count, count, model.tokens + b * model.context + position);
    int used = static_cast<int>(threads);
    workers = used;
    if (count == 1) {
        Step<T>(model, 0, model.rows, position, 1, 0, nullptr).run(has_before != 0, logits);
        return 0;
    }
    Packed<T> packed(model, used);
    bool by_rows = used > 1 && model.rows > 1;
#pragma omp parallel for schedule(dynamic) num_threads(used) if (by_rows)
    for (int64_t b = 0; b < model.rows; b++) {
        workers = by_rows ? 1 : used;
        Step<T>(model, b, 1, position, count, start, &packed)
            .run(has_before != 0, logits + b * (count - start) * model.vocab);
        workers = 1;
    }
    return 0;
}

}  // namespace

#define DECODE(NAME, T)                                                                       \
    int64_t NAME(const Model<T> *model, const int64_t *came, int64_t count, int64_t position, \
                 int64_t has_before, int64_t start, int64_t threads, T *logits) {             \
        return decode(*model, came, count, position, has_before, start, threads, logits);     \
    }

extern "C" {
DECODE(decode_float32, float)
DECODE(decode_float64, double)
}
