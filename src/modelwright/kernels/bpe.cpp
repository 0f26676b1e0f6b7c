// Byte-level BPE: UTF-8 text to token ids, by the merges in their order (arXiv:1508.07909).
//
// The text is cut into words by one of four published patterns, written out by hand; what a
// letter, a number and white space is comes from a table that the caller fills from the regular
// expression engine whose splits are to be met. A word's ids are remembered.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr uint8_t LETTER = 1, NUMBER = 2, SPACE = 4, UNKNOWN = 255;
constexpr uint32_t NONE = 0xffffffffu;
constexpr size_t SLOTS = 1 << 15;  // remembered words
constexpr size_t SHORT = 48;       // bytes of a word up to which scanning beats a heap

struct Word {
    uint8_t length = 0, count = 0;
    char bytes[30];
    uint32_t ids[8];
};

struct Tokenizer {
    struct Merge {
        uint64_t key = ~0ull;  // (left, right)
        uint32_t turn = NONE;
    };
    std::vector<Merge> merges;  // open addressing
    uint64_t mask;
    std::vector<uint64_t> known;  // a bit for each hash of a merge: most pairs are none
    uint64_t known_mask;
    uint32_t byte_turn[256];
    std::vector<uint32_t> ids;  // of every turn
    // Of each character below 2^16, the turn that its bytes come to whatever stands beside it.
    std::vector<uint32_t> whole = std::vector<uint32_t>(1 << 16, NONE);
    std::vector<Word> words = std::vector<Word>(SLOTS);

    static uint64_t mixed(uint64_t x) {
        x *= 0x9E3779B97F4A7C15ull;
        return x ^ (x >> 29);
    }
    uint32_t joined(uint32_t left, uint32_t right) const {
        uint64_t key = (uint64_t(left) << 32 | right);
        uint64_t hash = mixed(key), bit = hash >> 24 & known_mask;
        if (!(known[bit >> 6] >> (bit & 63) & 1)) return NONE;
        for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
            if (merges[at].key == key || merges[at].key == ~0ull) return merges[at].turn;
        }
    }
};

struct Text {
    const uint8_t* at;
    size_t size;
    const uint8_t* table;
    long unknown = -1;  // a code point whose class is not in the table

    size_t after(size_t i) const {  // the next character's begin
        uint8_t c = at[i];
        return i + (c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4);
    }
    uint8_t kind(size_t i) {
        uint32_t c = at[i];
        if (c >= 0xf0)
            c = (c & 7) << 18 | (at[i + 1] & 63) << 12 | (at[i + 2] & 63) << 6 | (at[i + 3] & 63);
        else if (c >= 0xe0)
            c = (c & 15) << 12 | (at[i + 1] & 63) << 6 | (at[i + 2] & 63);
        else if (c >= 0x80)
            c = (c & 31) << 6 | (at[i + 1] & 63);
        uint8_t found = table[c];
        if (found == UNKNOWN) {
            unknown = c;
            return 0;
        }
        return found;
    }
    bool is(size_t i, char c) const { return i < size && at[i] == uint8_t(c); }
    bool latin(size_t i) const { return i < size && uint8_t((at[i] | 32) - 'a') < 26; }
    bool any(size_t i, uint8_t kinds) { return i < size && (kind(i) & kinds); }
    bool none(size_t i, uint8_t kinds) { return i < size && !(kind(i) & kinds); }
    bool line_end(size_t i) const { return is(i, '\n') || is(i, '\r'); }
    // Ours counts the letters A to Z alone; others are what is neither they, number, nor space.
    bool other(size_t i) { return none(i, NUMBER | SPACE) && !latin(i); }
};

size_t contraction(const Text& t, size_t i, bool fold) {
    if (!t.is(i, '\'') || i + 1 >= t.size) return i;
    auto low = [&](size_t k) {
        int c = k < t.size ? t.at[k] : 0;
        return fold && c >= 'A' && c <= 'Z' ? c | 32 : c;
    };
    int a = low(i + 1), b = low(i + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return i + 3;
    if (fold && a == 0xc5 && b == 0xbf) return i + 3;  // the long s folds to s
    return i;
}

// \s*\n or \s*[\r\n]+ (where the pattern has it), else \s+(?!\S), else \s+
size_t blank(Text& t, size_t i, bool lines, bool returns) {
    size_t end = i, last = i, line = 0;
    while (t.any(end, SPACE)) {
        last = end;
        if (lines && (t.at[end] == '\n' || (returns && t.at[end] == '\r'))) line = end + 1;
        end = t.after(end);
    }
    if (line) return line;
    return end < t.size && last > i ? last : end;
}

size_t ours(Text& t, size_t i) {
    size_t j = i + t.is(i, ' ');
    if (t.latin(j)) {
        while (t.latin(j)) ++j;
        return j;
    }
    if (t.any(i, NUMBER)) {
        for (int k = 0; k < 3 && t.any(i, NUMBER); ++k) i = t.after(i);
        return i;
    }
    if (t.other(j)) {
        while (t.other(j)) j = t.after(j);
        while (t.is(j, '\n')) ++j;
        return j;
    }
    return blank(t, i, true, false);
}

size_t gpt2(Text& t, size_t i) {
    size_t j = contraction(t, i, false);
    if (j > i) return j;
    j = i + t.is(i, ' ');
    for (uint8_t kinds : {LETTER, NUMBER})
        if (t.any(j, kinds)) {
            while (t.any(j, kinds)) j = t.after(j);
            return j;
        }
    if (t.none(j, LETTER | NUMBER | SPACE)) {
        while (t.none(j, LETTER | NUMBER | SPACE)) j = t.after(j);
        return j;
    }
    return blank(t, i, false, false);
}

size_t gpt4(Text& t, size_t i, int digits) {
    size_t j = contraction(t, i, true);
    if (j > i) return j;
    j = i;
    if (!t.line_end(i) && t.none(i, LETTER | NUMBER)) j = t.after(i);
    if (t.any(j, LETTER)) {
        while (t.any(j, LETTER)) j = t.after(j);
        return j;
    }
    if (t.any(i, NUMBER)) {
        for (int k = 0; k < digits && t.any(i, NUMBER); ++k) i = t.after(i);
        return i;
    }
    j = i + t.is(i, ' ');
    if (t.none(j, LETTER | NUMBER | SPACE)) {
        while (t.none(j, LETTER | NUMBER | SPACE)) j = t.after(j);
        while (t.line_end(j)) ++j;
        return j;
    }
    return blank(t, i, true, true);
}

size_t merge_short(const Tokenizer& k, uint32_t* turns, size_t n) {
    uint32_t next[SHORT];
    for (size_t i = 0; i + 1 < n; ++i) next[i] = k.joined(turns[i], turns[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; ++i)
            if (next[i] < next[best]) best = i;
        if (next[best] == NONE) break;
        turns[best] = next[best];
        --n;
        for (size_t i = best + 1; i < n; ++i) turns[i] = turns[i + 1];
        for (size_t i = best; i + 1 < n; ++i) next[i] = next[i + 1];
        if (best + 1 < n) next[best] = k.joined(turns[best], turns[best + 1]);
        if (best) next[best - 1] = k.joined(turns[best - 1], turns[best]);
    }
    return n;
}

struct Pair {
    uint32_t turn, left, right;
    size_t at;
    bool operator<(const Pair& o) const { return turn != o.turn ? turn > o.turn : at > o.at; }
};

size_t merge_long(const Tokenizer& k, uint32_t* turns, size_t n) {
    std::vector<size_t> after(n), before(n);
    std::priority_queue<Pair> waiting;
    auto offer = [&](size_t i) {
        size_t j = after[i];
        if (j >= n) return;
        uint32_t turn = k.joined(turns[i], turns[j]);
        if (turn != NONE) waiting.push({turn, turns[i], turns[j], i});
    };
    for (size_t i = 0; i < n; ++i) after[i] = i + 1, before[i] = i - 1;
    for (size_t i = 0; i < n; ++i) offer(i);
    while (!waiting.empty()) {
        Pair p = waiting.top();
        waiting.pop();
        size_t j = after[p.at];
        if (turns[p.at] != p.left || j >= n || turns[j] != p.right) continue;
        turns[p.at] = p.turn;
        turns[j] = NONE;  // gone
        after[p.at] = after[j];
        if (after[j] < n) before[after[j]] = p.at;
        offer(p.at);
        if (p.at) offer(before[p.at]);
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i = after[i]) turns[kept++] = turns[i];
    return kept;
}

size_t merge(const Tokenizer& k, uint32_t* turns, size_t n) {
    return n <= SHORT ? merge_short(k, turns, n) : merge_long(k, turns, n);
}

size_t begin_turns(const Tokenizer& k, const uint8_t* at, size_t n, uint32_t* out) {
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c = at[i], found = NONE;
        size_t size = 1;
        if (c >= 0xe0 && c < 0xf0 && i + 2 < n) {
            size = 3;
            found = k.whole[(c & 15) << 12 | (at[i + 1] & 63) << 6 | (at[i + 2] & 63)];
        } else if (c >= 0xc0 && c < 0xe0 && i + 1 < n) {
            size = 2;
            found = k.whole[(c & 31) << 6 | (at[i + 1] & 63)];
        }
        if (found != NONE) {
            out[count++] = found;
            i += size;
        } else {
            for (size_t end = i + size; i < end; ++i) out[count++] = k.byte_turn[at[i]];
        }
    }
    return count;
}

size_t encode_word(Tokenizer& k, const uint8_t* at, size_t n, uint32_t* out) {
    Word* slot = nullptr;
    if (n <= sizeof(Word::bytes)) {
        uint64_t hash = n, part;
        for (size_t i = 0; i < n; i += 8) {
            part = 0;
            memcpy(&part, at + i, n - i < 8 ? n - i : 8);
            hash = Tokenizer::mixed(hash ^ part) + i;
        }
        slot = &k.words[(hash ^ hash >> 32) & (SLOTS - 1)];
        if (slot->length == n && !memcmp(slot->bytes, at, n)) {
            memcpy(out, slot->ids, slot->count * sizeof(uint32_t));
            return slot->count;
        }
    }
    size_t count = merge(k, out, begin_turns(k, at, n, out));
    for (size_t i = 0; i < count; ++i) out[i] = k.ids[out[i]];
    if (slot && count <= 8) {
        slot->length = n, slot->count = count;
        memcpy(slot->bytes, at, n);
        memcpy(slot->ids, out, count * sizeof(uint32_t));
    }
    return count;
}

// Writes at most t.size ids; returns how many, or -1 - c where the class of c is unknown.
long encode_text(Tokenizer& k, Text t, int pattern, uint32_t* out) {
    long count = 0;
    for (size_t i = 0; i < t.size;) {
        size_t end = pattern == 0   ? ours(t, i)
                     : pattern == 1 ? gpt2(t, i)
                                    : gpt4(t, i, pattern == 2 ? 3 : 1);
        if (t.unknown >= 0) return -1 - t.unknown;
        count += encode_word(k, t.at + i, end - i, out + count);
        i = end;
    }
    return count;
}

size_t length_of(uint8_t lead) { return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }
bool inside(uint8_t byte) { return (byte & 0xc0) == 0x80; }

// Fills k.whole. A character may stand for its bytes from the start if no merge before the last
// of its own makes a token across one of its borders: merges come in the order of their turns, so
// its bytes then go as if it stood alone, and what comes later sees one token in either case.
// Such tokens are told by their bytes: they begin with a character's last bytes and go on, or end
// with its first bytes and have begun before, or hold it and more.
void find_whole(Tokenizer& k, const std::vector<std::string>& texts) {
    std::unordered_map<std::string, uint32_t> head, tail, within;  // the earliest such turn
    for (uint32_t turn = 256; turn < texts.size(); ++turn) {
        const std::string& text = texts[turn];
        size_t i = 0;
        while (i < text.size() && inside(text[i])) ++i;
        if (i && i < text.size()) tail.emplace(text.substr(0, i), turn);
        while (i < text.size()) {
            size_t size = length_of(text[i]);
            std::string part = text.substr(i, size);
            if (part.size() < text.size()) (part.size() < size ? head : within).emplace(part, turn);
            i += size;
        }
    }
    auto before = [](const auto& map, const std::string& part, uint32_t turn) {
        auto found = map.find(part);
        return found != map.end() && found->second < turn;
    };
    for (uint32_t turn = 256; turn < texts.size(); ++turn) {
        const std::string& text = texts[turn];
        if (text.size() > 3 || inside(text[0]) || length_of(text[0]) != text.size()) continue;
        uint32_t turns[3], point = text[0] & (text.size() == 2 ? 31 : 15);
        bool sure = !before(within, text, turn);
        for (size_t i = 1; i < text.size(); ++i) {
            sure &= !before(head, text.substr(0, i), turn) && !before(tail, text.substr(i), turn);
            sure &= inside(text[i]);
            point = point << 6 | (text[i] & 63);
        }
        for (size_t i = 0; i < text.size(); ++i) turns[i] = k.byte_turn[uint8_t(text[i])];
        sure = sure && merge_short(k, turns, text.size()) == 1 && turns[0] == turn;
        if (sure) k.whole[point] = turn;
    }
}

}  // namespace

extern "C" {

// merges: (count, 2) turns, of which the i-th makes turn 256 + i of earlier ones; ids:
// (256 + count,); odd: the first turn that its own bytes do not come to, or -1.
void* bpe_new(const uint32_t* merges, long count, const uint32_t* byte_turn, const uint32_t* ids,
              long* odd) {
    auto* made = new Tokenizer;
    uint64_t room = 1024;
    while (room < 3 * uint64_t(count)) room *= 2;
    made->mask = room - 1;
    made->merges.resize(room);
    made->known.resize(room / 4);  // 16 bits a slot
    made->known_mask = 16 * room - 1;
    for (long i = 0; i < count; ++i) {
        uint64_t key = uint64_t(merges[2 * i]) << 32 | merges[2 * i + 1];
        uint64_t hash = Tokenizer::mixed(key), at = hash & made->mask;
        uint64_t bit = hash >> 24 & made->known_mask;
        made->known[bit >> 6] |= uint64_t(1) << (bit & 63);
        while (made->merges[at].key != ~0ull) at = (at + 1) & made->mask;
        made->merges[at] = {key, uint32_t(256 + i)};
    }
    memcpy(made->byte_turn, byte_turn, sizeof made->byte_turn);
    made->ids.assign(ids, ids + 256 + count);
    std::vector<std::string> texts(256 + count);
    for (int b = 0; b < 256; ++b) texts[byte_turn[b]] = std::string(1, char(b));
    for (long i = 0; i < count; ++i)
        texts[256 + i] = texts[merges[2 * i]] + texts[merges[2 * i + 1]];
    *odd = -1;
    std::vector<uint32_t> turns;
    for (long turn = 256; turn < 256 + count && *odd < 0; ++turn) {
        turns.clear();
        for (uint8_t byte : texts[turn]) turns.push_back(byte_turn[byte]);
        if (merge(*made, turns.data(), turns.size()) != 1 || turns[0] != turn) *odd = turn;
    }
    find_whole(*made, texts);
    return made;
}

void bpe_free(void* made) { delete static_cast<Tokenizer*>(made); }

// Writes at most size ids; returns how many, or -1 - c where the class of c is not in the table.
long bpe_encode(void* made, const uint8_t* text, long size, const uint8_t* table, int pattern,
                uint32_t* out) {
    return encode_text(*static_cast<Tokenizer*>(made), {text, size_t(size), table}, pattern, out);
}

// Row r is text[bounds[r]..bounds[rows + r]]; its ids go behind those of the others, then the id
// end, and counts[r] is how many. done = {rows, ids} so far, from where it goes on. Returns 0, or
// -1 - c where the class of c is not in the table.
long bpe_encode_many(void* made, const uint8_t* text, const int64_t* bounds, long rows,
                     const uint8_t* table, int pattern, uint32_t end, uint32_t* out,
                     int64_t* counts, int64_t* done) {
    for (auto& row = done[0]; row < rows; ++row) {
        Text t{text + bounds[row], size_t(bounds[rows + row] - bounds[row]), table};
        uint32_t* at = out + done[1];
        long count = encode_text(*static_cast<Tokenizer*>(made), t, pattern, at);
        if (count < 0) return count;
        at[count] = end;
        counts[row] = count + 1;
        done[1] += count + 1;
    }
    return 0;
}
}
