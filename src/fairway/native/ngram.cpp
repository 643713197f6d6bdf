// The n-gram memory of evaluate/learners/ngram.py, the gates of gates.py and the mixtures of both:
// the same floats as theirs. How a memory is stored is in the header.

#include "ngram_memory.h"

namespace {

// The mixed distribution over all tokens, given what each expert leaves to those below it.
void join(const Memory &memory, const double *kept, const double *model, int64_t vocab_size,
          double *mixed) {
    double weight = 1.0;
    for (int64_t i = static_cast<int64_t>(memory.experts.size()) - 1; i >= 0; i--) {
        const Expert &one = memory.experts[i];
        double share = weight * (1.0 - kept[i]);
        if (!one.counts) {
            mixed[one.lone] += share;
        } else {
            double each = share / one.total;
            for (size_t j = 0; j < one.counts->tokens.size(); j++)
                mixed[one.counts->tokens[j]] += one.counts->values[j] * each;
        }
        weight *= kept[i];
    }
    for (int64_t v = 0; v < vocab_size; v++) mixed[v] = mixed[v] + weight * model[v];
}

// Evidence for below and above each gate: Gates of gates.py.
struct Gates {
    double *below, *above;
    double memory, least;

    double kept(int64_t gate) const {
        double lower = below[gate] + least, upper = above[gate] + least;
        return lower / (lower + upper);
    }

    // The mixed probability of a token: Gates.chain and then Gates.learn.
    double mix_and_learn(const int64_t *gates, const double *ahead, int64_t number, double p,
                         std::vector<double> &shares) {
        shares.resize(number);
        for (int64_t i = 0; i < number; i++) {
            double gate = kept(gates[i]), lower = gate * p;
            p = lower + (1.0 - gate) * ahead[i];
            shares[i] = lower / p;
        }
        double reached = 1.0;
        for (int64_t i = number - 1; i >= 0; i--) {
            below[gates[i]] = below[gates[i]] * memory + reached * shares[i];
            above[gates[i]] = above[gates[i]] * memory + reached * (1.0 - shares[i]);
            reached *= shares[i];
        }
        return p;
    }
};

// How a mixture is settled (settled_row.py).
struct Settling {
    const double *surprising;  // falling: where one class of surprise ends and the next begins
    int64_t num_surprising, vocab_size;
    double one;  // units
};

// Where the slices of the mixture end, given where the model's do; the model's probabilities and
// each expert's gate are kept for whoever learns.
int64_t look(Memory &memory, const Gates &gates, const Settling &how, const int64_t *model,
             double *probabilities, int64_t *chosen, int64_t *ends) {
    double total = static_cast<double>(model[how.vocab_size - 1]);
    for (int64_t v = 0; v < how.vocab_size; v++)
        probabilities[v] = static_cast<double>(model[v] - (v ? model[v - 1] : 0)) / total;
    memory.find_experts();
    int64_t number = static_cast<int64_t>(memory.experts.size());
    std::vector<double> kept(number), mixed(how.vocab_size, 0.0);
    for (int64_t i = 0; i < number; i++) {
        const Expert &expert = memory.experts[i];
        int64_t surprise = 0;
        for (int64_t j = 0; !expert.counts && j < how.num_surprising; j++)
            surprise += probabilities[expert.lone] < how.surprising[j];
        chosen[i] = expert.kind * (how.num_surprising + 1) + surprise;
        kept[i] = gates.kept(chosen[i]);
    }
    join(memory, kept.data(), probabilities, how.vocab_size, mixed.data());
    int64_t sum = 0;
    for (int64_t v = 0; v < how.vocab_size; v++) {
        sum += static_cast<int64_t>(mixed[v] * how.one) + 1;  // nothing is impossible
        ends[v] = sum;
    }
    return number;
}

// The token that came, after `look`.
void learn(Memory &memory, Gates &gates, const int64_t *chosen, int64_t number, double p,
           int64_t token) {
    std::vector<double> ahead(number), shares;
    for (int64_t i = 0; i < number; i++)
        ahead[i] = memory.experts[i].probability(static_cast<int32_t>(token));
    gates.mix_and_learn(chosen, ahead.data(), number, p, shares);
    memory.push(static_cast<int32_t>(token));
}

}  // namespace

extern "C" {

Memory *memory_new(const int32_t *orders, int64_t num_orders, double fade, Memory *parent,
                   int64_t portable) {
    Memory *memory = new Memory();
    memory->parent = parent;
    memory->orders.assign(orders, orders + num_orders);
    memory->fade = fade;
    memory->portable = portable != 0;
    memory->time = parent ? parent->time : 0;
    return memory;
}

void memory_free(Memory *memory) { delete memory; }

void memory_stand_after(Memory *memory, const int64_t *history, int64_t length) {
    memory->stand_after(history, length);
}

void memory_push(Memory *memory, int64_t token) { memory->push(static_cast<int32_t>(token)); }

void memory_absorb(Memory *memory, Memory *branch) { memory->absorb(*branch); }

void memory_read(Memory *memory, const int64_t *text, int64_t length, int64_t num_targets) {
    memory->stand_after(text, length - num_targets);
    for (int64_t i = length - num_targets; i < length; i++)
        memory->push(static_cast<int32_t>(text[i]));
}

// Experts of every target of a window, laid end to end; returns how many there are of all.
int64_t memory_gather(Memory *memory, const int64_t *text, int64_t length, int64_t num_targets,
                      int64_t *kinds, double *ahead, int64_t *pointed, int64_t *numbers) {
    memory->stand_after(text, length - num_targets);
    int64_t at = 0;
    for (int64_t i = length - num_targets; i < length; i++) {
        int32_t token = static_cast<int32_t>(text[i]);
        memory->find_experts();
        for (const Expert &one : memory->experts) {
            kinds[at] = one.kind;
            ahead[at] = one.probability(token);
            pointed[at++] = one.counts ? -1 : one.lone;
        }
        *numbers++ = static_cast<int64_t>(memory->experts.size());
        memory->push(token);
    }
    return at;
}

int64_t memory_experts(Memory *memory, int64_t *kinds, int64_t *pointed) {
    memory->find_experts();
    for (const Expert &one : memory->experts) {
        *kinds++ = one.kind;
        *pointed++ = one.counts ? -1 : one.lone;
    }
    return static_cast<int64_t>(memory->experts.size());
}

// What the experts of `memory_experts` give a token, the least specific first.
void memory_ahead(Memory *memory, int64_t token, double *ahead) {
    for (const Expert &one : memory->experts)
        *ahead++ = one.probability(static_cast<int32_t>(token));
}

void memory_join(Memory *memory, const double *kept, const double *model, int64_t vocab_size,
                 double *mixed) {
    join(*memory, kept, model, vocab_size, mixed);
}

// Mix and learn, target after target.
void gates_mix(double *below, double *above, double memory, double least, const int64_t *gates,
               const double *ahead, const int64_t *numbers, const double *model,
               int64_t num_targets, double *mixed) {
    Gates all{below, above, memory, least};
    std::vector<double> shares;
    for (int64_t target = 0; target < num_targets; target++) {
        int64_t number = numbers[target];
        mixed[target] = all.mix_and_learn(gates, ahead, number, model[target], shares);
        gates += number;
        ahead += number;
    }
}

int64_t mixture_look(Memory *memory, const Gates *gates, const Settling *how, const int64_t *model,
                     double *probabilities, int64_t *chosen, int64_t *ends) {
    return look(*memory, *gates, *how, model, probabilities, chosen, ends);
}

void mixture_learn(Memory *memory, Gates *gates, const int64_t *chosen, int64_t number, double p,
                   int64_t token) {
    learn(*memory, *gates, chosen, number, p, token);
}

// Both for each of some tokens that are known, and the slice of each.
void mixture_read(Memory *memory, Gates *gates, const Settling *how, const int64_t *model,
                  const int64_t *tokens, int64_t num_targets, int64_t *starts, int64_t *sizes,
                  int64_t *totals) {
    int64_t vocab_size = how->vocab_size;
    std::vector<double> probabilities(vocab_size);
    std::vector<int64_t> chosen(4 * MOST_ORDERS), ends(vocab_size);
    for (int64_t i = 0; i < num_targets; i++) {
        int64_t token = tokens[i];
        int64_t number = look(*memory, *gates, *how, model + i * vocab_size, probabilities.data(),
                              chosen.data(), ends.data());
        starts[i] = token ? ends[token - 1] : 0;
        sizes[i] = ends[token] - starts[i];
        totals[i] = ends[vocab_size - 1];
        learn(*memory, *gates, chosen.data(), number, probabilities[token], token);
    }
}

}  // extern "C"
