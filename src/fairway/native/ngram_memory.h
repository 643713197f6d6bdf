// The n-gram memory of evaluate/learners/ngram.py, operation for operation: the same floats. What each
// part means is written there; here is how it is stored.
//
// A context is found by a hash of its tokens and told apart by the tokens themselves, which stay in
// the memory's own text. A memory with a parent copies what it changes.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t AGES[] = {60, 250, 1000, 5000};
constexpr int NUM_AGES = 5, NUM_NUMBERS = 8, NUM_SUCCESSORS = 5;
constexpr int NUM_KINDS = NUM_AGES * NUM_NUMBERS * NUM_SUCCESSORS;
constexpr int MOST_ORDERS = 64;

int number_class(int64_t number) {
    if (number < 4) return static_cast<int>(number);
    return number < 8 ? 4 : number < 16 ? 5 : number < 64 ? 6 : 7;
}

int age_class(int64_t age) {
    int found = 0;
    for (int64_t limit : AGES) found += age >= limit;
    return found;
}

uint64_t stir(uint64_t hash, uint64_t token) {
    hash = (hash ^ token) * 0x9E3779B97F4A7C15ull;
    return hash ^ (hash >> 29);
}

// portable_exp of ngram.py.
double portable_exp(double x) {
    constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
    double halvings = std::floor(x * 1.4426950408889634 + 0.5);
    double rest = (x - halvings * LN2_HIGH) - halvings * LN2_LOW;
    double value = 0.0, factorials[15] = {1.0};
    for (int n = 1; n < 15; n++) factorials[n] = factorials[n - 1] * n;
    for (int n = 14; n >= 0; n--) value = value * rest + 1.0 / factorials[n];
    return std::ldexp(value, static_cast<int>(halvings));
}

// token -> value, in the order of arrival; many of them through a table of places.
struct Counts {
    std::vector<int32_t> tokens;
    std::vector<double> values;
    std::vector<int32_t> table;  // place + 1, or 0; empty while a few are found by looking

    double *find(int32_t token) {
        if (table.empty()) {
            for (size_t i = 0; i < tokens.size(); i++)
                if (tokens[i] == token) return &values[i];
            return nullptr;
        }
        int32_t place = table[slot_of(token)];
        return place ? &values[place - 1] : nullptr;
    }

    void insert(int32_t token, double value) {
        tokens.push_back(token);
        values.push_back(value);
        if (tokens.size() <= 12) return;
        if (2 * tokens.size() > table.size()) {
            table.assign(4 * table.size() > 64 ? 4 * table.size() : 64, 0);
            for (size_t i = 0; i < tokens.size(); i++)
                table[slot_of(tokens[i])] = static_cast<int32_t>(i) + 1;
        } else {
            table[slot_of(token)] = static_cast<int32_t>(tokens.size());
        }
    }

    size_t slot_of(int32_t token) const {  // where it is, or the free one where it belongs
        size_t mask = table.size() - 1;
        size_t slot = stir(0, static_cast<uint64_t>(token)) & mask;
        while (table[slot] && tokens[table[slot] - 1] != token) slot = (slot + 1) & mask;
        return slot;
    }
};

struct Recent {
    int64_t since = 0;
    double total = 0.0;
    Counts weights;
};

struct Context {
    uint64_t hash;
    int64_t end;  // where it ends in the text of its memory
    int64_t number, time;
    int32_t length;
    int32_t newest;
    int32_t lone;     // its only successor, or -1
    int32_t counts;   // place of its successors, or -1 for a lone one
    int32_t recent;   // place of its recent ones, or -1
};

struct Memory;

struct Found {
    Memory *owner;  // null: nowhere
    int32_t place;
};

struct Expert {
    int64_t kind;
    int32_t lone;    // or -1
    Counts *counts;  // where it is spread
    double total;

    double probability(int32_t token) const {
        if (!counts) return lone == token ? 1.0 : 0.0;
        const double *value = counts->find(token);
        return value ? *value / total : 0.0;
    }
};

struct Memory {
    Memory *parent;
    std::vector<int32_t> orders;
    double fade;
    bool portable = false;
    int64_t time = 0;
    std::vector<int32_t> text;
    int64_t tail = 0;  // tokens at the end of the text that contexts may be made of
    std::vector<Context> contexts;
    std::vector<int32_t> table = std::vector<int32_t>(64, 0);
    std::vector<Counts> counts;
    std::vector<Recent> recents;
    int num_keys = 0;
    uint64_t hashes[MOST_ORDERS];
    Found found[MOST_ORDERS];
    bool looked = false;  // whether `found` is of this place
    std::vector<Expert> experts;

    double exp(double x) const { return portable ? portable_exp(x) : std::exp(x); }

    void find_keys() {
        looked = false;
        num_keys = 0;
        uint64_t hash = 0x51ED270B35AE5D1Bull;
        int64_t back = 0, size = static_cast<int64_t>(text.size());
        for (int32_t order : orders) {
            if (order > tail) break;
            for (; back < order; back++) hash = stir(hash, static_cast<uint32_t>(text[size - 1 - back]));
            hashes[num_keys++] = hash;
            for (Memory *m = this; m; m = m->parent)
                __builtin_prefetch(&m->table[hash & (m->table.size() - 1)]);
        }
    }

    void stand_after(const int64_t *history, int64_t length) {
        int64_t most = orders.back();
        if (length > most) history += length - most, length = most;
        bool same = length <= static_cast<int64_t>(text.size());
        for (int64_t i = 0; same && i < length; i++)
            same = text[text.size() - length + i] == history[i];
        if (!same)
            for (int64_t i = 0; i < length; i++) text.push_back(static_cast<int32_t>(history[i]));
        tail = length;
        find_keys();
    }

    int32_t own(uint64_t hash, int32_t length, const int32_t *tokens) const {
        size_t mask = table.size() - 1;
        for (size_t slot = hash & mask; table[slot]; slot = (slot + 1) & mask) {
            const Context &one = contexts[table[slot] - 1];
            if (one.hash == hash && one.length == length &&
                !std::memcmp(text.data() + (one.end - length), tokens, length * sizeof(int32_t)))
                return table[slot] - 1;
        }
        return -1;
    }

    void look() {
        if (looked) return;
        for (int key = 0; key < num_keys; key++) {
            const int32_t *tokens = text.data() + text.size() - orders[key];
            found[key] = {nullptr, -1};
            for (Memory *m = this; m && !found[key].owner; m = m->parent) {
                int32_t place = m->own(hashes[key], orders[key], tokens);
                if (place >= 0) found[key] = {m, place};
            }
        }
        looked = true;
    }

    void enter(int32_t place) {
        if (2 * contexts.size() > table.size()) {
            table.assign(4 * table.size(), 0);
            for (size_t i = 0; i < contexts.size(); i++) seat(static_cast<int32_t>(i));
        } else {
            seat(place);
        }
    }

    void seat(int32_t place) {
        size_t mask = table.size() - 1, slot = contexts[place].hash & mask;
        while (table[slot]) slot = (slot + 1) & mask;
        table[slot] = place + 1;
    }

    // The context of a key, this memory's own and free to be changed; -1: nowhere.
    int32_t own_context(int key) {
        Found at = found[key];
        if (!at.owner || at.owner == this) return at.place;
        Context copy = at.owner->contexts[at.place];
        copy.end = static_cast<int64_t>(text.size());
        if (copy.counts >= 0) {
            counts.push_back(at.owner->counts[copy.counts]);
            copy.counts = static_cast<int32_t>(counts.size()) - 1;
        }
        if (copy.recent >= 0) {
            recents.push_back(at.owner->recents[copy.recent]);
            copy.recent = static_cast<int32_t>(recents.size()) - 1;
        }
        contexts.push_back(copy);
        int32_t place = static_cast<int32_t>(contexts.size()) - 1;
        enter(place);
        return place;
    }

    void find_experts() {
        look();
        experts.clear();
        int64_t kinds_of_newest = static_cast<int64_t>(orders.size()) * NUM_KINDS;
        for (int key = 0; key < num_keys; key++) {
            if (!found[key].owner) continue;
            Memory &owner = *found[key].owner;
            Context &one = owner.contexts[found[key].place];
            Counts *several = one.counts >= 0 ? &owner.counts[one.counts] : nullptr;
            int64_t successors = several ? static_cast<int64_t>(several->tokens.size()) : 1;
            int64_t kind = (key * NUM_AGES + age_class(time - one.time)) * NUM_NUMBERS;
            kind = (kind + number_class(one.number)) * NUM_SUCCESSORS;
            int of_successors = number_class(successors);
            kind += of_successors < NUM_SUCCESSORS ? of_successors : NUM_SUCCESSORS - 1;
            experts.push_back({kind, one.lone, several, static_cast<double>(one.number)});
            if (one.recent >= 0) {
                Recent &recent = owner.recents[one.recent];
                double worth = recent.total * exp(static_cast<double>(recent.since - time) / fade);
                int64_t of_recent = 2 * kinds_of_newest + number_class(static_cast<int64_t>(2.0 * worth));
                of_recent += one.length ? NUM_NUMBERS : 0;
                experts.push_back({of_recent, -1, &recent.weights, recent.total});
            }
            experts.push_back({kinds_of_newest + kind, one.newest, nullptr, 1.0});
        }
    }

    void push_recent(Recent &recent, int32_t token) {
        double exponent = static_cast<double>(time - recent.since) / fade;
        if (exponent > 200.0) {
            double shrink = exp(-exponent);
            for (double &value : recent.weights.values) value *= shrink;
            recent.total *= shrink;
            recent.since = time;
            exponent = 0.0;
        }
        double weight = exp(exponent);
        if (double *value = recent.weights.find(token)) *value += weight;
        else recent.weights.insert(token, weight);
        recent.total += weight;
    }

    void push(int32_t token) {
        look();
        bool expected = false;
        for (int key = num_keys - 1; key >= 0; key--) {
            int32_t place = own_context(key);
            bool is_new = place < 0;
            if (is_new) {
                contexts.push_back({hashes[key], static_cast<int64_t>(text.size()), 1, time,
                                    orders[key], token, token, -1, -1});
                place = static_cast<int32_t>(contexts.size()) - 1;
                enter(place);
                if (orders[key] <= 1) {
                    recents.push_back({time, 0.0, {}});
                    contexts[place].recent = static_cast<int32_t>(recents.size()) - 1;
                }
            }
            Context &one = contexts[place];
            if (one.recent >= 0) push_recent(recents[one.recent], token);
            if (is_new) continue;
            double *value = one.counts >= 0 ? counts[one.counts].find(token) : nullptr;
            bool known = one.counts >= 0 ? value != nullptr : one.lone == token;
            if (!expected) {
                one.number++;
                if (value) {
                    *value += 1.0;
                } else if (one.counts >= 0) {
                    counts[one.counts].insert(token, 1.0);
                } else if (one.lone != token) {
                    Counts several;
                    several.insert(one.lone, static_cast<double>(one.number - 1));
                    several.insert(token, 1.0);
                    counts.push_back(several);
                    one.counts = static_cast<int32_t>(counts.size()) - 1;
                    one.lone = -1;
                }
            }
            one.newest = token;
            one.time = time;
            expected = expected || known;
        }
        time++;
        text.push_back(token);
        if (tail < orders.back()) tail++;
        find_keys();
    }

    // Know all that a branch of this memory has come to know.
    void absorb(Memory &branch) {
        int64_t shift = static_cast<int64_t>(text.size());
        text.insert(text.end(), branch.text.begin(), branch.text.end());
        for (Context &one : branch.contexts) {
            const int32_t *tokens = branch.text.data() + one.end - one.length;
            int32_t place = own(one.hash, one.length, tokens);
            Context mine = one;
            mine.end += shift;
            if (place < 0) {
                if (one.counts >= 0) counts.push_back({}), mine.counts = last(counts);
                if (one.recent >= 0) recents.push_back({}), mine.recent = last(recents);
                contexts.push_back(mine);
                place = last(contexts);
                enter(place);
            } else {
                Context &old = contexts[place];
                mine.counts = old.counts;
                if (one.counts >= 0 && old.counts < 0) counts.push_back({}), mine.counts = last(counts);
                mine.recent = old.recent;
                old = mine;
            }
            if (one.counts >= 0) counts[mine.counts] = std::move(branch.counts[one.counts]);
            if (one.recent >= 0) recents[mine.recent] = std::move(branch.recents[one.recent]);
        }
        time = branch.time;
        tail = branch.tail;
        find_keys();
    }

    template <typename T> static int32_t last(const std::vector<T> &all) {
        return static_cast<int32_t>(all.size()) - 1;
    }
};

}  // namespace
