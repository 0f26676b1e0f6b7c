// Counts of a text in one pass over its UTF-8 bytes; the Python beside it says what each means.
//
// The table gives a byte for every code point: bits 0-2 its kind, bit 3 letter, bit 4 digit,
// bits 5-7 script. A word is a run of kind kWord with marks after it, joined by single joiners;
// a letter of a script without spaces is a word of its own. N-grams are followed from 2 to 10:
// one that occurs once cannot be the beginning of a longer one that occurs twice, so each length
// looks only at the places that were left by the one before.

#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

enum Kind { kOther, kSpace, kWord, kUnspaced, kMark, kJoin };

enum Out {
  oChars, oVisible, oLetters, oDigits, oWords, oWordChars, oAlphaWords, oUnspaced, oSigns,
  oHashes, oEllipses, oBraces, oLorem, oSentences, oStopWords, oChineseStopWords, oNewlines,
  oLines, oLineChars, oBulletLines, oEllipsisLines, oEndedLines, oShortLines, oLongestLine,
  oRepeatedLines, oRepeatedLineChars, oParagraphs, oRepeatedParagraphs, oRepeatedParagraphChars,
  oLongestRun, oScripts, oTop = oScripts + 8, oRepeated = oTop + 3, oCount = oRepeated + 6
};

// Also written in Python: an index of n-grams made on one machine is read on another.
uint64_t hash_of(const uint8_t* from, long size, bool lower) {
  uint64_t h = 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(size);
  while (size > 0) {
    uint64_t part = 0;
    const long some = size < 8 ? size : 8;
    if (lower) {
      for (long i = 0; i < some; i++) {
        uint8_t c = from[i];
        if (c >= 'A' && c <= 'Z') c += 32;
        part |= static_cast<uint64_t>(c) << (8 * i);
      }
    } else {
      std::memcpy(&part, from, some);
    }
    h = (h ^ part) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
    from += some;
    size -= some;
  }
  h *= 0xD6E8FEB86659FD93ull;
  return h ^ (h >> 29);
}

inline uint64_t joined(uint64_t a, uint64_t b) {
  uint64_t h = (a * 0x9E3779B97F4A7C15ull) ^ b;
  h *= 0xD6E8FEB86659FD93ull;
  return h ^ (h >> 31);
}

// How often each hash came; 0 marks an empty place, so a hash of 0 is taken for 1.
struct Tally {
  std::vector<uint64_t> keys;
  std::vector<uint32_t> counts;
  size_t mask = 0, used = 0;

  void start(size_t wanted) {
    size_t size = 64;
    while (size < 2 * wanted) size *= 2;
    if (keys.size() < size) {
      keys.resize(size);
      counts.resize(size);
    }
    mask = size - 1;
    used = 0;
    std::memset(keys.data(), 0, size * sizeof(uint64_t));
  }

  size_t place(uint64_t key) {
    if (key == 0) key = 1;
    size_t at = (key ^ (key >> 32)) & mask;
    while (keys[at] != key) {
      if (keys[at] == 0) {
        keys[at] = key;
        counts[at] = 0;
        used++;
        break;
      }
      at = (at + 1) & mask;
    }
    return at;
  }

  // Whether it came before; grows as needed.
  bool again(uint64_t key) {
    if (2 * used > mask) grow();
    return counts[place(key)]++ > 0;
  }

  void grow() {
    std::vector<uint64_t> old(keys.begin(), keys.begin() + mask + 1);
    std::vector<uint32_t> times(counts.begin(), counts.begin() + mask + 1);
    start(mask + 1);
    for (size_t i = 0; i < old.size(); i++)
      if (old[i]) counts[place(old[i])] = times[i];
  }
};

struct Scratch {
  std::vector<uint64_t> hashes, grams;
  std::vector<uint32_t> ends;  // characters of all words up to and with this one
  std::vector<uint32_t> starts, slots;
  Tally tally, lines, paragraphs;
};

const char* const kStops[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
const uint32_t kChineseStops[] = {0x7684, 0x662F, 0x5728, 0x4E86, 0x4E0D,
                                  0x6709, 0x548C, 0x4E00};  // 的是在了不有和一

unsigned stop_word(const uint8_t* word, long size) {
  if (size < 2 || size > 4) return 0;
  char lower[5] = {0};
  for (long i = 0; i < size; i++)
    lower[i] = word[i] >= 'A' && word[i] <= 'Z' ? word[i] + 32 : word[i];
  for (unsigned i = 0; i < 8; i++)
    if (std::strcmp(lower, kStops[i]) == 0) return 1u << i;
  return 0;
}

unsigned chinese_stop_word(uint32_t c) {
  for (unsigned i = 0; i < 8; i++)
    if (c == kChineseStops[i]) return 1u << i;
  return 0;
}

bool ends_a_line(uint32_t c) {
  switch (c) {
    case '.': case '!': case '?': case '"': case '\'': case 0x2026: case 0x201D: case 0x2019:
    case 0x3002: case 0xFF01: case 0xFF1F: case 0xFF0E: case 0x300D: case 0x300F: case 0x061F:
    case 0x06D4: case 0x0964: case 0x1362:
      return true;
  }
  return false;
}

bool is_bullet(uint32_t c) {
  switch (c) {
    case 0x2022: case 0x2023: case 0x25B6: case 0x25C0: case 0x25E6: case 0x25A0: case 0x25A1:
    case 0x25AA: case 0x25AB: case 0x25CF: case 0x25CB: case 0x2013: case 0x00B7: case 0x30FB:
      return true;
  }
  return false;
}

bool stops(uint32_t c) { return c == '.' || c == '!' || c == '?' || c == 0x2026; }

bool stops_chinese(uint32_t c) { return c == 0x3002 || c == 0xFF01 || c == 0xFF1F; }

bool closes(uint32_t c) {
  switch (c) {
    case '"': case '\'': case ')': case ']': case 0x201D: case 0x2019: case 0x300D: case 0x300F:
      return true;
  }
  return false;
}

// The code point at `at`, which moves behind it. Python's own UTF-8 is well-formed.
inline uint32_t next(const uint8_t* text, long& at) {
  const uint8_t c = text[at];
  if (c < 0x80) {
    at += 1;
    return c;
  }
  if (c < 0xE0) {
    at += 2;
    return ((c & 0x1Fu) << 6) | (text[at - 1] & 0x3Fu);
  }
  if (c < 0xF0) {
    at += 3;
    return ((c & 0x0Fu) << 12) | ((text[at - 2] & 0x3Fu) << 6) | (text[at - 1] & 0x3Fu);
  }
  at += 4;
  return ((c & 0x07u) << 18) | ((text[at - 3] & 0x3Fu) << 12) | ((text[at - 2] & 0x3Fu) << 6) |
         (text[at - 1] & 0x3Fu);
}

inline Kind kind_of(uint8_t flags) { return static_cast<Kind>(flags & 7); }

// After a run of sentence stops: closing signs, then white space or the end?
bool sentence_ends(const uint8_t* text, long size, long at, const uint8_t* table) {
  while (at < size) {
    const uint32_t c = next(text, at);
    if (!closes(c)) return kind_of(table[c]) == kSpace;
  }
  return true;
}

bool lorem(const uint8_t* text, long size, long at) {
  static const char words[] = "lorem ipsum";
  if (at < 0 || size - at < 11) return false;
  for (long i = 0; i < 11; i++) {
    const uint8_t c = text[at + i];
    if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != static_cast<uint8_t>(words[i])) return false;
  }
  return true;
}

long ascii_letters(const uint8_t* text, long size, long at) {
  const long from = at;
  while (at < size && static_cast<uint8_t>((text[at] | 32) - 'a') < 26) at++;
  return at - from;
}

struct Line {
  long first = -1, end = 0, first_char = 0, end_char = 0;  // of what is not white space
  uint32_t head = 0, tail = 0;
};

struct Paragraph {
  uint64_t hash = 0;
  long chars = 0, lines = 0;
};

void close_paragraph(Paragraph& paragraph, Scratch& s, int64_t* out) {
  if (paragraph.lines) {
    out[oParagraphs]++;
    if (s.paragraphs.again(paragraph.hash)) {
      out[oRepeatedParagraphs]++;
      out[oRepeatedParagraphChars] += paragraph.chars;
    }
  }
  paragraph = Paragraph();
}

void close_line(Line& line, Paragraph& paragraph, const uint8_t* text, Scratch& s, int64_t* out) {
  if (line.first < 0) {
    close_paragraph(paragraph, s, out);
    return;
  }
  const long size = line.end - line.first, chars = line.end_char - line.first_char;
  const uint8_t* from = text + line.first;
  out[oLines]++;
  out[oLineChars] += chars;
  if (chars > out[oLongestLine]) out[oLongestLine] = chars;
  out[oShortLines] += chars <= 30;
  out[oEndedLines] += ends_a_line(line.tail);
  const bool dots = size >= 3 && std::memcmp(from + size - 3, "...", 3) == 0;
  out[oEllipsisLines] += dots || line.tail == 0x2026;
  const bool dash = line.head == '-' || line.head == '*' || line.head == '+';
  out[oBulletLines] += is_bullet(line.head) || (dash && size > 1 && from[1] == ' ');
  const uint64_t hash = hash_of(from, size, false);
  if (s.lines.again(hash)) {
    out[oRepeatedLines]++;
    out[oRepeatedLineChars] += chars;
  }
  paragraph.hash = joined(paragraph.hash, hash);
  paragraph.chars += chars;
  paragraph.lines++;
  line = Line();
}

// One pass over the characters: everything but the n-grams, for which the words are kept.
void scan(const uint8_t* text, long size, const uint8_t* table, Scratch& s, int64_t* out) {
  Line line;
  Paragraph paragraph;
  long at = 0, index = 0, word = -1, word_start = 0, run = 0;  // index: of the character
  bool alpha = false, token = false, token_has_word = false;
  bool stopped = false, stopped_chinese = false;
  unsigned stop_words = 0, chinese_stop_words = 0, dots = 0;
  uint32_t total = 0;
  auto keep_word = [&](long from, long to, long chars) {
    s.hashes.push_back(hash_of(text + from, to - from, false));
    total += static_cast<uint32_t>(chars);
    s.ends.push_back(total);
    token_has_word = true;
  };
  auto close_word = [&](long end) {
    if (word < 0) return;
    keep_word(word, end, index - word_start);
    out[oAlphaWords] += alpha;
    stop_words |= stop_word(text + word, end - word);
    word = -1;
  };
  auto close_run = [&]() {  // a run of signs and letters without white space or ideographs
    if (run > out[oLongestRun]) out[oLongestRun] = run;
    run = 0;
  };
  auto close_token = [&]() {  // what stands between white space
    close_run();
    out[oSigns] += token && !token_has_word;
    token = token_has_word = false;
  };
  while (at < size) {
    const long before = at;
    uint32_t c = next(text, at);
    const uint8_t flags = table[c];
    const Kind kind = kind_of(flags);
    if (kind != kSpace && line.first < 0) {
      line.first = before;
      line.first_char = index;
      line.head = c;
    }
    out[oLetters] += (flags >> 3) & 1;
    out[oDigits] += (flags >> 4) & 1;
    out[oScripts + (flags >> 5)]++;
    if (kind == kWord) {
      if (word < 0) {
        word = before;
        word_start = index;
        alpha = false;
      }
      alpha |= (flags >> 3) & 1;
      dots = 0;
      stopped = stopped_chinese = false;
      const long more = ascii_letters(text, size, at);
      if (more) {  // the rest of most words in one go
        out[oLetters] += more;
        out[oScripts + 1] += more;
        out[oVisible] += more;
        run += more;
        index += more;
        at += more;
        alpha = true;
        c = text[at - 1];
      }
    } else {
      bool inside = false;
      if (word >= 0) {
        inside = kind == kMark;
        if (kind == kJoin && at < size) {
          long ahead = at;
          inside = kind_of(table[next(text, ahead)]) == kWord;
        }
        if (!inside) close_word(before);
      }
      if (kind == kUnspaced) {
        keep_word(before, at, 1);
        out[oUnspaced]++;
        out[oAlphaWords] += (flags >> 3) & 1;
        chinese_stop_words |= chinese_stop_word(c);
      }
      dots = c == '.' ? dots + 1 : 0;
      out[oEllipses] += dots == 3 || c == 0x2026;
      out[oHashes] += c == '#';
      out[oBraces] += c == '{' || c == '}';
      if (stops(c)) {
        if (!stopped) {  // the first of a run: is the run the end of a sentence?
          long ahead = at, behind = at;
          while (ahead < size && stops(next(text, behind))) ahead = behind;
          out[oSentences] += sentence_ends(text, size, ahead, table);
        }
        stopped = true;
      } else {
        stopped = false;
      }
      out[oSentences] += stops_chinese(c) && !stopped_chinese;
      stopped_chinese = stops_chinese(c);
    }
    if (kind == kSpace) {
      if (c == ' ') out[oLorem] += lorem(text, size, before - 5);
      close_token();
      if (c == '\n') {
        out[oNewlines]++;
        close_line(line, paragraph, text, s, out);
      }
    } else {
      out[oVisible]++;
      token = true;
      if (kind == kUnspaced)
        close_run();
      else
        run++;
      line.end = at;
      line.end_char = index + 1;
      line.tail = c;
    }
    index++;
  }
  close_word(size);
  close_token();
  close_line(line, paragraph, text, s, out);
  close_paragraph(paragraph, s, out);
  out[oChars] = index;
  out[oWords] = static_cast<int64_t>(s.hashes.size());
  out[oWordChars] = total;
  out[oStopWords] = __builtin_popcount(stop_words);
  out[oChineseStopWords] = __builtin_popcount(chinese_stop_words);
}

void follow_grams(Scratch& s, int64_t* out) {
  const size_t words = s.hashes.size();
  s.grams = s.hashes;
  s.starts.resize(words);
  s.slots.resize(words);
  for (size_t i = 0; i < words; i++) s.starts[i] = static_cast<uint32_t>(i);
  size_t left = words;
  for (size_t n = 2; n <= 10 && left; n++) {
    s.tally.start(left);
    size_t kept = 0, covered = 0;  // `covered`: the word behind the last counted
    for (size_t k = 0; k < left; k++) {
      const uint32_t i = s.starts[k];
      if (i + n > words) continue;
      s.grams[i] = joined(s.grams[i], s.hashes[i + n - 1]);
      const size_t slot = s.tally.place(s.grams[i]);
      if (s.tally.counts[slot]++ > 0 && n >= 5) {
        const size_t from = covered > i ? covered : i;
        const uint32_t behind = from ? s.ends[from - 1] : 0;
        out[oRepeated + n - 5] += s.ends[i + n - 1] - behind;
        covered = i + n;
      }
      s.starts[kept] = i;
      s.slots[kept++] = static_cast<uint32_t>(slot);
    }
    left = kept;
    kept = 0;
    uint64_t most = 1;
    int64_t top = 0;
    for (size_t k = 0; k < left; k++) {
      const uint32_t i = s.starts[k];
      const uint64_t count = s.tally.counts[s.slots[k]];
      if (count < 2) continue;
      s.starts[kept++] = i;
      if (n > 4 || count < most) continue;
      const int64_t chars = count * (s.ends[i + n - 1] - (i ? s.ends[i - 1] : 0));
      if (count > most || chars > top) top = chars;
      most = count;
    }
    if (n <= 4) out[oTop + n - 2] = top;
    left = kept;
  }
}

Scratch& scratch() {
  static thread_local Scratch mine;
  if (mine.hashes.capacity() > (1u << 22)) mine = Scratch();  // a giant text keeps no memory
  mine.hashes.clear();
  mine.ends.clear();
  return mine;
}

}  // namespace

extern "C" {

// `out` holds `text_stats_size()` zeros. 0, or 1 where memory was short.
int text_stats(const uint8_t* text, long size, const uint8_t* table, int grams, int64_t* out) {
  try {
    Scratch& s = scratch();
    s.lines.start(16);
    s.paragraphs.start(16);
    scan(text, size, table, s, out);
    if (grams) follow_grams(s, out);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

int text_stats_size() { return oCount; }

// The words of a text: hash with ASCII in lower case, and first and last character + 1 of each.
// The arrays hold as many as the text has bytes. Returns how many words there are.
long text_words(const uint8_t* text, long size, const uint8_t* table, uint64_t* hashes,
                uint32_t* starts, uint32_t* ends) {
  long at = 0, word = -1, found = 0;
  uint32_t index = 0, first = 0;
  auto close = [&](long end) {
    if (word < 0) return;
    hashes[found] = hash_of(text + word, end - word, true);
    starts[found] = first;
    ends[found++] = index;
    word = -1;
  };
  for (; at < size; index++) {
    const long before = at;
    const Kind kind = kind_of(table[next(text, at)]);
    if (kind == kWord) {
      if (word < 0) {
        word = before;
        first = index;
      }
      continue;
    }
    if (word >= 0) {
      bool inside = kind == kMark;
      if (kind == kJoin && at < size) {
        long ahead = at;
        inside = kind_of(table[next(text, ahead)]) == kWord;
      }
      if (!inside) close(before);
    }
    if (kind == kUnspaced) {
      hashes[found] = hash_of(text + before, at - before, true);
      starts[found] = index;
      ends[found++] = index + 1;
    }
  }
  close(size);
  return found;
}
}
