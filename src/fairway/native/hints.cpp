// The memory of evaluate/learners/hints.py, operation for operation. What each part means is
// written there; here is how it is stored: two tables with open addressing, told apart by the whole
// key, so that their size decides nothing. A memory with a parent copies what it changes.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

constexpr uint64_t OF_CONTEXT = 1000003, OF_TOKEN = 1441801;

struct __attribute__((packed)) Context {
    uint64_t key;
    uint32_t number, best, count;
    bool used() const { return number != 0; }
};

struct __attribute__((packed)) Pair {
    uint64_t key;
    uint32_t count;
    bool used() const { return count != 0; }
};

template <typename Entry>
struct Table {
    std::vector<Entry> entries;  // a power of two of them
    std::size_t number = 0;

    std::size_t place_of(uint64_t key) const {
        uint64_t hash = key * 0x9E3779B97F4A7C15ull;
        hash = (hash ^ (hash >> 32)) * 0xD6E8FEB86659FD93ull;
        std::size_t mask = entries.size() - 1, place = (hash ^ (hash >> 32)) & mask;
        while (entries[place].used() && entries[place].key != key) place = (place + 1) & mask;
        return place;
    }

    const Entry *find(uint64_t key) const {
        if (!number) return nullptr;
        const Entry &entry = entries[place_of(key)];
        return entry.used() ? &entry : nullptr;
    }

    // To be filled by the caller with an entry that is in use.
    Entry *own(uint64_t key) {
        if (4 * (number + 1) > 3 * entries.size()) grow();
        Entry *entry = &entries[place_of(key)];
        if (!entry->used()) number++;
        return entry;
    }

    void grow() {
        std::vector<Entry> before(entries.empty() ? 64 : 2 * entries.size());
        before.swap(entries);
        for (const Entry &entry : before)
            if (entry.used()) entries[place_of(entry.key)] = entry;
    }
};

struct Memory {
    std::vector<uint64_t> coefficients;
    const Memory *parent;
    Table<Context> contexts;
    Table<Pair> pairs;
    std::vector<int64_t> tail;  // the last tokens, oldest first

    std::size_t length() const { return coefficients.size(); }

    uint64_t key() const {
        uint64_t key = 0;
        for (std::size_t i = 0; i < tail.size(); i++)
            key ^= static_cast<uint64_t>(tail[i]) * coefficients[i];
        return key;
    }

    Context context(uint64_t key) const {
        for (const Memory *at = this; at; at = at->parent)
            if (const Context *found = at->contexts.find(key)) return *found;
        return Context{key, 0, 0, 0};
    }

    uint32_t pair(uint64_t key) const {
        for (const Memory *at = this; at; at = at->parent)
            if (const Pair *found = at->pairs.find(key)) return found->count;
        return 0;
    }

    void expect(const Context &context, int64_t *token, double *confidence) const {
        *token = context.number ? static_cast<int64_t>(context.best) : -1;
        *confidence = context.number ? static_cast<double>(context.count) / context.number : 0.0;
    }

    void step(int64_t token, int64_t *expected, double *confidence) {
        Context now{0, 0, 0, 0};
        if (tail.size() == length()) {
            uint64_t at = key();
            now = context(at);
            uint64_t both = at * OF_CONTEXT ^ static_cast<uint64_t>(token) * OF_TOKEN;
            uint32_t count = pair(both) + 1;
            *pairs.own(both) = Pair{both, count};
            Context next = now;
            next.number++;
            if (count > now.count) {
                next.best = static_cast<uint32_t>(token);
                next.count = count;
            }
            *contexts.own(at) = next;
        }
        expect(now, expected, confidence);
        if (tail.empty()) tail.push_back(token);
        if (tail.size() == length()) tail.erase(tail.begin());
        tail.push_back(token);
    }

    void absorb(const Memory &branch) {
        for (const Context &entry : branch.contexts.entries)
            if (entry.used()) *contexts.own(entry.key) = entry;
        for (const Pair &entry : branch.pairs.entries)
            if (entry.used()) *pairs.own(entry.key) = entry;
        tail = branch.tail;
    }
};

}  // namespace

extern "C" {

void *hints_new(const uint64_t *coefficients, int64_t length, const void *parent) {
    auto *memory = new Memory;
    memory->coefficients.assign(coefficients, coefficients + length);
    memory->parent = static_cast<const Memory *>(parent);
    if (memory->parent) memory->tail = memory->parent->tail;
    return memory;
}

void hints_free(void *memory) { delete static_cast<Memory *>(memory); }

void hints_absorb(void *memory, const void *branch) {
    static_cast<Memory *>(memory)->absorb(*static_cast<const Memory *>(branch));
}

void hints_stand_after(void *memory, const int64_t *tokens, int64_t number) {
    auto *self = static_cast<Memory *>(memory);
    int64_t kept = static_cast<int64_t>(self->length());
    if (kept > number) kept = number;
    self->tail.assign(tokens + (number - kept), tokens + number);
}

int64_t hints_place(const void *memory, int64_t *tokens) {
    const auto &tail = static_cast<const Memory *>(memory)->tail;
    for (std::size_t i = 0; i < tail.size(); i++) tokens[i] = tail[i];
    return static_cast<int64_t>(tail.size());
}

void hints_expected(const void *memory, int64_t *token, double *confidence) {
    const auto *self = static_cast<const Memory *>(memory);
    bool whole = self->tail.size() == self->length();
    self->expect(whole ? self->context(self->key()) : Context{0, 0, 0, 0}, token, confidence);
}

void hints_read(void *memory, const int64_t *tokens, int64_t number, int64_t *expected,
                double *confidence) {
    auto *self = static_cast<Memory *>(memory);
    for (int64_t i = 0; i < number; i++) self->step(tokens[i], expected + i, confidence + i);
}

int64_t hints_bytes(const void *memory) {
    const auto *self = static_cast<const Memory *>(memory);
    return static_cast<int64_t>(self->contexts.entries.size() * sizeof(Context) +
                                self->pairs.entries.size() * sizeof(Pair));
}

}  // extern "C"
