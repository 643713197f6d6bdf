// A model, and what a decoder keeps of its past, as model/decode_step.py describes them: field by
// field, all of eight bytes.

#include <cstdint>

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

}  // namespace
