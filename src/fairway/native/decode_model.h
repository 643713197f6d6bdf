// A model, and what a decoder keeps of its past, as model/decode_step.py describes them: field by
// field, all of eight bytes; and its matrices as tiles read them. Stands behind products.h.

#include <cstdint>
#include <unordered_map>

namespace {

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

// narrow: matrices of passes, and those around them, lie in float32 whatever T is.
template <typename T> struct Model {
    int64_t rows, context, vocab, dim, embed_dim, heads, kv_heads, head_dim, rotary;
    int64_t bos, within_documents, smear, smear_window, smear_across, value_width, rank;
    int64_t num_ngrams, num_passes, num_skips, narrow;
    double softcap, adapter_scale;
    const T *embed, *embed_up, *head_down, *head, *smear_gate, *smear_strength;
    const T *value_table, *value_project, *value_scale, *cos, *sin, *cap_positive, *cap_negative;
    int64_t *tokens;  // (rows, context)
    T *before;        // (rows, embed_dim)
    Adapter<T> on_head;
    const Ngram<T> *ngrams;
    const Pass<T> *passes;
};

template <typename T> const float *narrow(const T *weights) {
    return reinterpret_cast<const float *>(weights);
}

// A model's matrices in the order in which tiles read them, for one call.
template <typename T> class Packed {
  public:
    explicit Packed(const Model<T> &m, int threads) {
        int64_t kv = m.kv_heads * m.head_dim;
        for (int64_t i = 0; i < m.num_passes; i++) {
            const Pass<T> &pass = m.passes[i];
            add(pass.query, m.dim, m.dim), add(pass.key, kv, m.dim), add(pass.value, kv, m.dim);
            add(pass.output, m.dim, m.dim), add(pass.up, pass.hidden, m.dim);
            add(pass.mlp_gate, pass.hidden, m.dim), add(pass.down, m.dim, pass.hidden);
        }
        add(m.embed_up, m.dim, m.embed_dim), add(m.head_down, m.embed_dim, m.dim);
        add(m.head, m.vocab, m.embed_dim);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (size_t i = 0; i < all.size(); i++) {
            const Matrix &one = all[i];
            if (m.narrow)
                Tiles<T>::pack_all(View<float>{narrow(one.weights), 1, one.in}, one.in, one.out, one.to);
            else
                Tiles<T>::pack_all(View<T>{one.weights, 1, one.in}, one.in, one.out, one.to);
        }
    }
    const T *find(const T *weights) const { return of.at(weights); }

  private:
    struct Matrix {
        const T *weights;
        int64_t out, in;
        T *to;
    };
    Scratch<T> scratch;
    std::vector<Matrix> all;
    std::unordered_map<const T *, const T *> of;

    void add(const T *weights, int64_t out, int64_t in) {
        if (!weights || of.count(weights)) return;
        T *to = scratch.take(Tiles<T>::packed_size(in, out));
        all.push_back({weights, out, in, to});
        of[weights] = to;
    }
};

}  // namespace
