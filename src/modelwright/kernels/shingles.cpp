// Words, word n-grams, their minima and the exact hash of texts, in one pass over UTF-8.
//
// What a word is comes from Python as a table of code points, so that this and the plain road
// agree on every character by construction. MinHash: Broder 1997; the hash functions
// a x + b mod 2^64 with odd a, high half: Dietzfelbinger et al. 1997. BLAKE2b: RFC 7693.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using u8 = uint8_t;
using u32 = uint32_t;
using u64 = uint64_t;

constexpr u32 LOWER = 0x1fffff, SPACE = 1u << 29, IDEOGRAPH = 1u << 30, WORD = 1u << 31;
constexpr u32 TABLE = 0x20000;  // planes 2 and 3 hold ideographs only, those above no words
constexpr u64 BASE = 0x9E3779B97F4A7C15ull, STEP = 0xBF58476D1CE4E5B9ull;
constexpr u64 LAST = 0x94D049BB133111EBull;
constexpr int WIDEST = 64;   // words of an n-gram
constexpr int BLOCK = 512;   // n-grams whose minima are taken together
constexpr int MOST = 256;    // hash functions

u32 classify(u32 c, const u32* table) {
    if (c < TABLE) return table[c];
    return c < 0x40000 ? c | WORD | IDEOGRAPH : c;
}

// One code point of valid UTF-8; surrogates may occur.
inline const u8* decode(const u8* p, const u8* end, u32& c) {
    const long left = end - p;
    if (p[0] < 0x80) { c = p[0]; return p + 1; }
    if (p[0] < 0xe0 && left > 1) { c = (p[0] & 31u) << 6 | (p[1] & 63u); return p + 2; }
    if (p[0] < 0xf0 && left > 2) {
        c = (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
        return p + 3;
    }
    if (left > 3) {
        c = (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
        return p + 4;
    }
    c = 0;
    return end;
}

// Eight ASCII characters in lower case at once.
inline u64 lower8(u64 x) {
    constexpr u64 ONES = 0x0101010101010101ull;
    const u64 upper = (x + ONES * (0x80 - 'A')) & ~(x + ONES * (0x7f - 'Z')) & ONES * 0x80;
    return x | upper >> 2;
}

// Hash of the bytes of a word: eight at a time, zeros behind, then the length.
struct Bytes {
    u64 hash = 0, chunk = 0, length = 0;
    int shift = 0;

    void add(u64 byte) {
        chunk |= byte << shift;
        shift += 8;
        if (shift == 64) step();
    }
    void step() {
        hash = (hash ^ chunk) * STEP;
        hash ^= hash >> 32;
        length += shift >> 3;
        chunk = 0;
        shift = 0;
    }
    // A run of ASCII within a text that ends at limit.
    void add_ascii(const u8* p, const u8* end, const u8* limit) {
        if (shift) {
            for (; p < end; p++) add(lower8(*p));
            return;
        }
        for (; end - p >= 8; p += 8) {
            std::memcpy(&chunk, p, 8);
            chunk = lower8(chunk);
            shift = 64;
            step();
        }
        if (p == end) return;
        shift = static_cast<int>(end - p) * 8;
        if (limit - p >= 8) {
            std::memcpy(&chunk, p, 8);
            chunk &= (1ull << shift) - 1;
        } else {
            for (int i = 0; p + i < end; i++) chunk |= static_cast<u64>(p[i]) << 8 * i;
        }
        chunk = lower8(chunk);
    }
    void add_code(u32 c) {
        if (c < 0x80) return add(c);
        if (c < 0x800) { add(0xc0 | c >> 6); return add(0x80 | (c & 63)); }
        if (c < 0x10000) {
            add(0xe0 | c >> 12);
        } else {
            add(0xf0 | c >> 18);
            add(0x80 | (c >> 12 & 63));
        }
        add(0x80 | (c >> 6 & 63));
        add(0x80 | (c & 63));
    }
    bool empty() const { return length == 0 && shift == 0; }
    u64 take() {
        if (shift) step();
        const u64 mixed = (hash ^ length) * LAST;
        *this = Bytes();
        return mixed ^ mixed >> 29;
    }
};

u64 mix(u64 x) {  // SplitMix64's finaliser
    x = (x ^ x >> 30) * STEP;
    x = (x ^ x >> 27) * LAST;
    return x ^ x >> 31;
}

// Turns word hashes into n-gram hashes: a polynomial in BASE whose first coefficient is n.
template <class Sink>
struct Grams {
    Sink& sink;
    int words;
    u64 ring[WIDEST] = {}, sum = 0, top = 1;
    long count = 0;
    int at = 0;

    Grams(Sink& s, int n) : sink(s), words(n) {
        for (int i = 0; i < n; i++) top *= BASE;  // BASE^n
    }
    void word(u64 hash) {
        sum = sum * BASE + hash - ring[at] * top;  // the ring holds 0 before the first round
        ring[at] = hash;
        if (++at == words) at = 0;
        if (++count >= words) sink.gram(mix(sum + static_cast<u64>(words) * top));
    }
    void end(bool whole) {
        if (!whole || count == 0 || count >= words) return;
        u64 power = static_cast<u64>(count);
        for (long i = 0; i < count; i++) power *= BASE;
        sink.gram(mix(sum + power));
    }
};

template <class Sink>
void walk(const u8* p, const u8* end, const u32* table, Grams<Sink>& grams) {
    bool plain[256] = {};  // ASCII that belongs to words
    for (int c = 0; c < 128; c++) plain[c] = (table[c] & WORD) != 0;
    Bytes word;
    while (p < end) {
        if (*p < 0x80) {
            const u8* run = p;
            while (p < end && plain[*p]) p++;
            word.add_ascii(run, p, end);
            if (p < end && *p >= 0x80) continue;  // the word goes on, or an ideograph follows
            if (!word.empty()) grams.word(word.take());
            while (p < end && *p < 0x80 && !plain[*p]) p++;
            continue;
        }
        u32 c;
        p = decode(p, end, c);
        const u32 kind = classify(c, table);
        if ((kind & (WORD | IDEOGRAPH)) == WORD) {
            word.add_code(kind & LOWER);
            continue;
        }
        if (!word.empty()) grams.word(word.take());
        if (kind & IDEOGRAPH) {
            word.add_code(kind & LOWER);
            grams.word(word.take());
        }
    }
    if (!word.empty()) grams.word(word.take());
}

// The text with every run of white space as one blank, and none at its ends.
long collapse(const u8* p, const u8* end, const u32* table, u8* out) {
    bool blank[128];
    for (int c = 0; c < 128; c++) blank[c] = (table[c] & SPACE) != 0;
    u8* const first = out;
    bool gap = true;  // a blank at the start is left out
    while (p < end) {
        if (*p < 0x80) {  // no branch on the character: every sixth would be guessed wrong
            const bool here = blank[*p];
            *out = here ? ' ' : *p;
            out += !(here && gap);
            gap = here;
            p++;
            continue;
        }
        u32 c;
        const u8* next = decode(p, end, c);
        if (classify(c, table) & SPACE) {
            *out = ' ';
            out += !gap;
            gap = true;
        } else {
            while (p < next) *out++ = *p++;
            gap = false;
        }
        p = next;
    }
    if (gap && out != first) out--;
    return out - first;
}

constexpr u64 START[8] = {
    0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull, 0xa54ff53a5f1d36f1ull,
    0x510e527fade682d1ull, 0x9b05688c2b3e6c1full, 0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull};
constexpr u8 ORDER[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

inline u64 turn(u64 x, int n) { return x >> n | x << (64 - n); }

inline void quarter(u64& a, u64& b, u64& c, u64& d, u64 x, u64 y) {
    a += b + x; d = turn(d ^ a, 32); c += d; b = turn(b ^ c, 24);
    a += b + y; d = turn(d ^ a, 16); c += d; b = turn(b ^ c, 63);
}

template <int ROUND>
inline void rounds(u64* v, const u64* m) {
    constexpr const u8* s = ORDER[ROUND % 10];
    quarter(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
    quarter(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
    quarter(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
    quarter(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
    quarter(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
    quarter(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
    quarter(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
    quarter(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
    if constexpr (ROUND < 11) rounds<ROUND + 1>(v, m);
}

void blake2b_128(const u8* data, long n, u64* digest) {
    u64 h[8], m[16], v[16];
    std::memcpy(h, START, sizeof h);
    h[0] ^= 0x01010000 ^ 16;  // no key, 16 bytes of digest
    long done = 0;
    do {
        const long size = std::min(n - done, 128L);
        std::memset(m, 0, sizeof m);
        std::memcpy(m, data + done, size);
        done += size;
        std::memcpy(v, h, sizeof h);
        std::memcpy(v + 8, START, sizeof START);
        v[12] ^= static_cast<u64>(done);
        if (done == n) v[14] = ~v[14];
        rounds<0>(v, m);
        for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
    } while (done < n);
    digest[0] = h[0];
    digest[1] = h[1];
}

// The least value of every hash function over the n-grams met.
struct Minima {
    const u64 *odd, *plus;
    int size, waiting = 0;
    u64 least[MOST], block[BLOCK];

    void begin() {
        waiting = 0;
        std::fill(least, least + size, ~0ull);
    }
    void gram(u64 hash) {
        block[waiting++] = hash;
        if (waiting == BLOCK) flush();
    }
    void flush() {
        for (; waiting & 3; waiting++) block[waiting] = block[waiting - 1];  // again: no change
        for (int i = 0; i < waiting; i += 4) {
            const u64 p = block[i], q = block[i + 1], r = block[i + 2], s = block[i + 3];
            for (int k = 0; k < size; k++) {
                const u64 a = odd[k], b = plus[k];
                const u64 x = std::min(a * p + b, a * q + b), y = std::min(a * r + b, a * s + b);
                least[k] = std::min(least[k], std::min(x, y));
            }
        }
        waiting = 0;
    }
};

struct List {
    u64* out;
    long count = 0;
    void gram(u64 hash) { out[count++] = hash; }
};

template <class Sink>
void grams_of(const u8* p, const u8* end, const u32* table, int words, bool whole,
              std::vector<u8>& room, Sink& sink) {
    Grams<Sink> grams(sink, words);
    walk(p, end, table, grams);
    if (grams.count == 0 && whole) {  // without a word it is its characters
        room.resize(end - p + 1);
        const long n = collapse(p, end, table, room.data());
        Bytes bytes;
        for (long i = 0; i < n; i++) bytes.add(room[i]);
        grams.word(bytes.take());
    }
    grams.end(whole);
}

}  // namespace

extern "C" {

// Texts of UTF-8, text i at offsets[i]..offsets[i+1]. exact: (count, 2) BLAKE2b; least:
// (count, size), the high halves of the minima. Returns 0, or -1 where memory is short.
long sketch(const u8* text, const long* offsets, long count, const u32* table, int words,
            const u64* odd, const u64* plus, int size, u64* exact, u32* least) {
    if (words < 1 || words > WIDEST || size < 1 || size > MOST) return -2;
    try {
        std::vector<u8> room;
        Minima minima{odd, plus, size};
        for (long i = 0; i < count; i++) {
            const u8 *p = text + offsets[i], *end = text + offsets[i + 1];
            room.resize(std::max<size_t>(room.size(), end - p + 1));
            const long n = collapse(p, end, table, room.data());
            blake2b_128(room.data(), n, exact + 2 * i);
            minima.begin();
            grams_of(p, end, table, words, true, room, minima);
            minima.flush();
            for (int k = 0; k < size; k++)
                least[i * size + k] = static_cast<u32>(minima.least[k] >> 32);
        }
    } catch (const std::bad_alloc&) {
        return -1;
    }
    return 0;
}

// The distinct n-grams of each text in ascending order, one text behind the other; counts[i] of
// text i. values needs room for half the bytes and one more a text. Returns how many, or -1.
long shingle(const u8* text, const long* offsets, long count, const u32* table, int words,
             int whole, u64* values, long* counts) {
    if (words < 1 || words > WIDEST) return -2;
    try {
        std::vector<u8> room;
        u64* out = values;
        for (long i = 0; i < count; i++) {
            List list{out};
            grams_of(text + offsets[i], text + offsets[i + 1], table, words, whole != 0, room,
                     list);
            std::sort(out, out + list.count);
            counts[i] = std::unique(out, out + list.count) - out;
            out += counts[i];
        }
        return out - values;
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

// The minima of ready n-grams: text i has values[offsets[i]..offsets[i+1]].
long minima(const u64* values, const long* offsets, long count, const u64* odd, const u64* plus,
            int size, u32* least) {
    if (size < 1 || size > MOST) return -2;
    Minima found{odd, plus, size};
    for (long i = 0; i < count; i++) {
        found.begin();
        for (long j = offsets[i]; j < offsets[i + 1]; j++) found.gram(values[j]);
        found.flush();
        for (int k = 0; k < size; k++) least[i * size + k] = static_cast<u32>(found.least[k] >> 32);
    }
    return 0;
}

// How many values two ascending lists without repetition share.
long common(const u64* a, long n, const u64* b, long m) {
    long i = 0, j = 0, both = 0;
    while (i < n && j < m) {
        const u64 x = a[i], y = b[j];
        both += x == y;
        i += x <= y;
        j += y <= x;
    }
    return both;
}
}
