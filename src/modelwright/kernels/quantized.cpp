// Products of few rows with large matrices of stored weights: int4 or int8 with a scale for every 32
// of a row, or bfloat16. Decoding reads every weight once a token, so bytes are what it waits for.
//
// A matrix (outputs, inputs) lies in blocks of 16 outputs, so that a register holds one number of
// each output and no sum over lanes is ever taken. Within a block, for every 32 inputs (a group):
//   int4   16 scales (float16), then 4 x 64 bytes; byte 4r+i of part j holds for output r the inputs
//          8j+i (low half) and 8j+4+i (high half), each raised by 8
//   int8   16 scales (float16), then 8 x 64 bytes; byte 4r+i of part j holds for output r the input
//          4j+i, raised by 128
//   bf16   16 x 64 bytes; pair r of part j holds for output r the inputs 2j and 2j+1
// For int4 and int8 the other factor is rounded to int8 with a scale for every 32 numbers, so the
// products within a group are exact integers. A row's result does not depend on the other rows.
//
// ``run_steps`` goes through the blocks of a decoder for one new token of some rows: the steps are
// written down once, and a token costs one call.

#include "vector.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <omp.h>

namespace {

constexpr long LANES = 16;
constexpr long GROUP = 32;
constexpr long AT_ONCE = 192;  // rows
enum Kind { INT4 = 0, INT8 = 1, BF16 = 2 };

constexpr long group_bytes(int kind) {
  return kind == INT4 ? 32 + 256 : kind == INT8 ? 32 + 512 : 1024;
}

// Rows of the other factor as they are multiplied.
struct Rounded {
  const int8_t* numbers;  // (rows, width)
  const float* scales;    // (rows, width / 32)
  const int32_t* sums;    // (rows, width / 32), of the numbers, times what weights were raised by
};

// The largest of a group becomes 127; the sum is what takes ``raised`` off every weight again.
inline void round_group(const float* x, int32_t raised, int8_t* numbers, float* scale,
                        int32_t* sum) {
  const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
  const float most = largest_size(a, b);
  const __m512 factor = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
  const __m512i p = _mm512_cvtps_epi32(_mm512_mul_ps(a, factor));
  const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(b, factor));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(numbers), _mm512_cvtsepi32_epi8(p));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(numbers + 16), _mm512_cvtsepi32_epi8(q));
  *scale = most / 127.0f;
  *sum = -raised * _mm512_reduce_add_epi32(_mm512_add_epi32(p, q));
}

// Have a line in the second-level cache; of an address that is nobody's nothing comes.
inline void ask(const uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0); }

inline __m512i four(const int8_t* from) {
  int32_t x;
  std::memcpy(&x, from, 4);
  return _mm512_set1_epi32(x);
}

// Some rows with one or two blocks of integer weights, which lie ``apart`` bytes from each other: what
// is read of a row serves both. A sum is made in the same order whatever stands beside it.
template <int KIND, int ROWS, int BLOCKS, bool ASKS>
inline void integer_tile(const uint8_t* block, long apart, long groups, const Rounded& x, long row,
                         float* out, long stride, __mmask16 some) {
  const long width = groups * GROUP;
  const __m512i low = _mm512_set1_epi8(15);
  __m512 total[BLOCKS][ROWS];
  for (int b = 0; b < BLOCKS; ++b)
    for (int m = 0; m < ROWS; ++m) total[b][m] = _mm512_setzero_ps();
  for (long g = 0; g < groups; ++g, block += group_bytes(KIND)) {
    __m512i part[BLOCKS][ROWS];
    for (int m = 0; m < ROWS; ++m) {
      part[0][m] = _mm512_set1_epi32(x.sums[(row + m) * groups + g]);
      if (BLOCKS == 2) part[BLOCKS - 1][m] = part[0][m];
    }
    const int8_t* numbers = x.numbers + row * width + g * GROUP;
    for (int j = 0; j < (KIND == INT4 ? 4 : 8); ++j) {
      __m512i one[BLOCKS], two[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) {
        one[b] = _mm512_loadu_si512(block + b * apart + 32 + 64 * j);
        if (ASKS) ask(block + BLOCKS * apart + 64 * j);
        if (KIND == INT4) {
          two[b] = _mm512_and_si512(_mm512_srli_epi16(one[b], 4), low);
          one[b] = _mm512_and_si512(one[b], low);
        }
      }
      for (int m = 0; m < ROWS; ++m) {
        const int8_t* at = numbers + m * width + (KIND == INT4 ? 8 : 4) * j;
        const __m512i first = four(at);
        for (int b = 0; b < BLOCKS; ++b)
          part[b][m] = _mm512_dpbusd_epi32(part[b][m], one[b], first);
        if (KIND == INT4) {
          const __m512i second = four(at + 4);
          for (int b = 0; b < BLOCKS; ++b)
            part[b][m] = _mm512_dpbusd_epi32(part[b][m], two[b], second);
        }
      }
    }
    for (int b = 0; b < BLOCKS; ++b) {
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(block + b * apart)));
      for (int m = 0; m < ROWS; ++m) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[(row + m) * groups + g]));
        total[b][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[b][m]), both, total[b][m]);
      }
    }
  }
  for (int b = 0; b < BLOCKS; ++b)
    for (int m = 0; m < ROWS; ++m)
      _mm512_mask_storeu_ps(out + b * LANES + m * stride, b + 1 < BLOCKS ? 0xffff : some,
                            total[b][m]);
}

// Some rows with one or two blocks of bfloat16; ``x`` are rows of pairs.
template <int ROWS, int BLOCKS>
inline void half_tile(const uint8_t* block, long apart, long groups, const Bf16* x, long row,
                      float* out, long stride, __mmask16 some) {
  const long width = groups * GROUP;
  // Two sums a row: a single row would leave the multiplier waiting for its own result.
  constexpr int SUMS = 2;
  __m512 total[BLOCKS][ROWS][SUMS];
  for (int b = 0; b < BLOCKS; ++b)
    for (int m = 0; m < ROWS; ++m)
      for (int s = 0; s < SUMS; ++s) total[b][m][s] = _mm512_setzero_ps();
  for (long k = 0; k < width / 2; k += SUMS) {
    for (int s = 0; s < SUMS; ++s) {
      __m512i w[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) w[b] = _mm512_loadu_si512(block + b * apart + 64 * (k + s));
      for (int m = 0; m < ROWS; ++m) {
        const __m512i pair = four((const int8_t*)(x + (row + m) * width + 2 * (k + s)));
        for (int b = 0; b < BLOCKS; ++b)
          total[b][m][s] = _mm512_dpbf16_ps(total[b][m][s], (__m512bh)w[b], (__m512bh)pair);
      }
    }
  }
  for (int b = 0; b < BLOCKS; ++b)
    for (int m = 0; m < ROWS; ++m)
      _mm512_mask_storeu_ps(out + b * LANES + m * stride, b + 1 < BLOCKS ? 0xffff : some,
                            _mm512_add_ps(total[b][m][0], total[b][m][1]));
}

template <int KIND, int ROWS, int BLOCKS, bool ASKS = false>
inline void tile(const uint8_t* block, long apart, long groups, const Rounded& x, const Bf16* halves,
                 long row, float* out, long stride, __mmask16 some) {
  if constexpr (KIND == BF16)
    half_tile<ROWS, BLOCKS>(block, apart, groups, halves, row, out, stride, some);
  else
    integer_tile<KIND, ROWS, BLOCKS, ASKS>(block, apart, groups, x, row, out, stride, some);
}

template <int KIND, int BLOCKS>
void block_product(const uint8_t* block, long groups, const Rounded& x, const Bf16* halves,
                   long row, long rows, float* out, long stride, __mmask16 some) {
  const long apart = groups * group_bytes(KIND);
  long m = row;
  if (BLOCKS == 1) {  // as many sums as there are registers for: 8, or 4 of two blocks
    for (; m + 8 <= rows; m += 8) {
      // The block is near by now: time to ask for the next one. Other kinds gain nothing by it.
      if (KIND == INT4 && m > row && m + 16 > rows)
        tile<KIND, 8, 1, true>(block, apart, groups, x, halves, m, out + m * stride, stride, some);
      else
        tile<KIND, 8, 1>(block, apart, groups, x, halves, m, out + m * stride, stride, some);
    }
  }
  for (; m + 4 <= rows; m += 4)
    tile<KIND, 4, BLOCKS>(block, apart, groups, x, halves, m, out + m * stride, stride, some);
  for (; m < rows; ++m)
    tile<KIND, 1, BLOCKS>(block, apart, groups, x, halves, m, out + m * stride, stride, some);
}

// A row as it is multiplied, in the room of ``rows`` of them.
struct Room {
  float* scales;
  int32_t* sums;
  int8_t* numbers;
  Bf16* halves;

  Room(void* at, long rows, long groups)
      : scales(static_cast<float*>(at)),
        sums(reinterpret_cast<int32_t*>(scales + rows * groups)),
        numbers(reinterpret_cast<int8_t*>(sums + rows * groups)),
        halves(static_cast<Bf16*>(at)) {}

  // Group ``at`` of all, from 32 numbers.
  void put(int kind, const float* x, long at) const {
    if (kind == BF16) {
      store_bf16(halves + at * GROUP, _mm512_loadu_ps(x));
      store_bf16(halves + at * GROUP + 16, _mm512_loadu_ps(x + 16));
    } else {
      round_group(x, kind == INT4 ? 8 : 128, numbers + at * GROUP, scales + at, sums + at);
    }
  }
};

// Rows ``row`` to ``rows`` with ``count`` (1 or 2) blocks from the ``b``th on.
template <int KIND>
void product_of_kind(const uint8_t* packed, long b, long count, long groups, const Room& x, long row,
                     long rows, long outputs, float* out) {
  const uint8_t* block = packed + b * groups * group_bytes(KIND);
  const __mmask16 some = first_of(outputs - (b + count - 1) * LANES);
  const Rounded rounded{x.numbers, x.scales, x.sums};
  float* to = out + b * LANES;
  if (count == 2)
    block_product<KIND, 2>(block, groups, rounded, x.halves, row, rows, to, outputs, some);
  else
    block_product<KIND, 1>(block, groups, rounded, x.halves, row, rows, to, outputs, some);
}

void product_of_blocks(int kind, const uint8_t* packed, long b, long count, long groups,
                       const Room& x, long row, long rows, long outputs, float* out) {
  if (kind == INT4)
    product_of_kind<INT4>(packed, b, count, groups, x, row, rows, outputs, out);
  else if (kind == INT8)
    product_of_kind<INT8>(packed, b, count, groups, x, row, rows, outputs, out);
  else
    product_of_kind<BF16>(packed, b, count, groups, x, row, rows, outputs, out);
}

inline void share(long count, int of, int who, long* first, long* last) {
  *first = count * who / of;
  *last = count * (who + 1) / of;
}


// Steps ---------------------------------------------------------------------------------------

enum Op { NORM = 0, PRODUCT = 1, ATTEND = 2, GATE = 3, MIX = 4 };
enum Activation { SILU = 0, GELU_TANH = 1, RELU = 2, RELU_SQUARED = 3, GELU = 4 };

// What a step reads and writes; widths count numbers of a row.
//   NORM     rounded room <- gain * x / sqrt(mean(x^2) + eps); ``centres``: x - mean(x) before, + bias
//   PRODUCT  to (rows, outputs) = or += room W^T + bias
//   ATTEND   room <- attention of queries (heads), with keys and values (kv_heads) put into a cache
//   GATE     room <- f(from) * with, or f(from)
//   MIX      to = eps * from + scale * with
struct Step {
  int32_t op, kind, wait, adds;  // ``kind`` of the weights that read the room, or of PRODUCT's
  const float* from;
  const float* with;
  const float* third;
  float* to;
  const void* weight;
  const float* bias;
  long width, outputs;
  // ATTEND: from = queries, with = keys, third = values; weight, bias = gains of the norms of
  // queries and keys, or null; cos and sin (rows, head / 2), or null; stride from row to row of
  // queries, keys and values.
  void* keys;
  void* values;
  const float* cos;
  const float* sin;
  long heads, kv_heads, head, capacity, window, strides[3];
  float eps, scale;
  int32_t activation, centres, half;  // ``half``: the cache is bfloat16
};

void norm_row(const Step& s, const Room& room, long row) {
  const float* x = s.from + row * s.width;
  const float* gain = static_cast<const float*>(s.weight);
  float mean = 0.0f;
  if (s.centres) {
    __m512 sum = _mm512_setzero_ps();
    for (long i = 0; i < s.width; i += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    mean = _mm512_reduce_add_ps(sum) / s.width;
  }
  const __m512 less = _mm512_set1_ps(mean);
  __m512 squares = _mm512_setzero_ps();
  for (long i = 0; i < s.width; i += 16) {
    const __m512 v = _mm512_sub_ps(_mm512_loadu_ps(x + i), less);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const float root = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / s.width + s.eps);
  const long groups = s.width / GROUP;
  alignas(64) float group[GROUP];
  for (long g = 0; g < groups; ++g) {
    for (long i = 0; i < GROUP; i += 16) {
      const long at = g * GROUP + i;
      __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + at), less), _mm512_set1_ps(root));
      v = _mm512_mul_ps(v, _mm512_loadu_ps(gain + at));
      if (s.bias) v = _mm512_add_ps(v, _mm512_loadu_ps(s.bias + at));
      _mm512_store_ps(group + i, v);
    }
    room.put(s.kind, group, row * groups + g);
  }
}

inline float activated(int kind, float x) {
  switch (kind) {
    case GELU_TANH: {
      const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + std::tanh(inner));
    }
    case GELU: return 0.5f * x * (1.0f + std::erf(x * 0.7071067811865476f));
    case RELU: return std::max(x, 0.0f);
    case RELU_SQUARED: return x < 0 ? 0.0f : x * x;  // so a NaN stays one
    default: return x;
  }
}

void gate_group(const Step& s, const Room& room, long at) {
  alignas(64) float group[GROUP];
  const float* x = s.from + at * GROUP;
  for (long i = 0; i < GROUP; i += 16) {
    __m512 v = _mm512_loadu_ps(x + i);
    if (s.activation == SILU) {
      const __m512 e = exp2_of(_mm512_mul_ps(v, _mm512_set1_ps(-1.4426950408889634f)));
      v = _mm512_div_ps(v, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
      _mm512_store_ps(group + i, v);
    } else {
      for (long j = i; j < i + 16; ++j) group[j] = activated(s.activation, x[j]);
    }
    if (s.with) {
      const __m512 w = _mm512_loadu_ps(s.with + at * GROUP + i);
      _mm512_store_ps(group + i, _mm512_mul_ps(_mm512_load_ps(group + i), w));
    }
  }
  room.put(s.kind, group, at);
}

// Numbers of a cache, in float32 or bfloat16.
inline __m512 read(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 read(const Bf16* from) { return load_bf16(from); }
inline void keep(float* to, const float* from, long width) {
  std::memcpy(to, from, width * sizeof(float));
}
inline void keep(Bf16* to, const float* from, long width) {
  for (long i = 0; i < width; i += 16) store_bf16(to + i, _mm512_loadu_ps(from + i));
}

template <class T>
inline float sum_of(const float* x, const T* y, long width) {
  __m512 sum = _mm512_setzero_ps();
  for (long i = 0; i < width; i += 16) sum = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), read(y + i), sum);
  return _mm512_reduce_add_ps(sum);
}

// A head's numbers after their norm and rotation; pairs are (i, i + half).
void turned(const float* x, const float* gain, const Step& s, long row, float* to) {
  const float root =
      gain ? 1.0f / std::sqrt(sum_of(x, x, s.head) / s.head + s.eps) : 1.0f;
  for (long i = 0; i < s.head; ++i) to[i] = gain ? x[i] * root * gain[i] : x[i];
  if (!s.cos) return;
  const long half = s.head / 2;
  const float* cos = s.cos + row * half;
  const float* sin = s.sin + row * half;
  for (long i = 0; i < half; ++i) {
    const float a = to[i], b = to[i + half];
    to[i] = a * cos[i] - b * sin[i];
    to[i + half] = b * cos[i] + a * sin[i];
  }
}

// One head of one row: its key and value go into the cache at ``length``, and it sees up to there.
template <class T>
void attend_head(const Step& s, const Room& room, long row, long h, long length,
                 std::vector<float>& scores) {
  const long group = s.heads / s.kv_heads, kv = h / group, d = s.head;
  T* keys = static_cast<T*>(s.keys) + (row * s.kv_heads + kv) * s.capacity * d;
  T* values = static_cast<T*>(s.values) + (row * s.kv_heads + kv) * s.capacity * d;
  float query[256], key[256], mixed[256];
  turned(s.from + row * s.strides[0] + h * d, static_cast<const float*>(s.weight), s, row, query);
  // Every head of a group makes the new key; the first writes it down.
  turned(s.with + row * s.strides[1] + kv * d, s.bias, s, row, key);
  const float* value = s.third + row * s.strides[2] + kv * d;
  if (h % group == 0) {
    keep(keys + length * d, key, d);
    keep(values + length * d, value, d);
  }
  const long first = s.window ? std::max(0L, length + 1 - s.window) : 0, seen = length + 1 - first;
  if (static_cast<long>(scores.size()) < seen + 16) scores.resize(seen + 16);
  float most = scores[seen - 1] = s.scale * sum_of(query, key, d);
  for (long t = 0; t + 1 < seen; ++t) {
    scores[t] = s.scale * sum_of(query, keys + (first + t) * d, d);
    most = std::max(most, scores[t]);
  }
  float total = 0.0f;
  const __m512 log2e = _mm512_set1_ps(1.4426950408889634f);
  __m512 sum = _mm512_setzero_ps();
  for (long t = 0; t < seen; t += 16) {
    const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(&scores[t]), _mm512_set1_ps(most));
    const __m512 e = _mm512_maskz_mov_ps(first_of(seen - t), exp2_of(_mm512_mul_ps(x, log2e)));
    _mm512_storeu_ps(&scores[t], e);
    sum = _mm512_add_ps(sum, e);
  }
  total = _mm512_reduce_add_ps(sum);
  for (long i = 0; i < d; i += 16) {
    __m512 out = _mm512_mul_ps(_mm512_loadu_ps(value + i), _mm512_set1_ps(scores[seen - 1]));
    for (long t = 0; t + 1 < seen; ++t)
      out = _mm512_fmadd_ps(read(values + (first + t) * d + i), _mm512_set1_ps(scores[t]), out);
    _mm512_storeu_ps(mixed + i, _mm512_div_ps(out, _mm512_set1_ps(total)));
  }
  const long groups = d / GROUP;
  for (long g = 0; g < groups; ++g)
    room.put(s.kind, mixed + g * GROUP, (row * s.heads + h) * groups + g);
}

void product_share(const Step& s, const Room& room, long rows, int of, int who,
                   std::vector<float>& scratch) {
  long first, last;
  share((s.outputs + LANES - 1) / LANES, of, who, &first, &last);
  const uint8_t* packed = static_cast<const uint8_t*>(s.weight);
  const long groups = s.width / GROUP;
  if (!s.adds && !s.bias) {
    for (long b = first; b < last; ++b)
      product_of_blocks(s.kind, packed, b, 1, groups, room, 0, rows, s.outputs, s.to);
    return;
  }
  scratch.resize(rows * s.outputs);
  for (long b = first; b < last; ++b) {
    product_of_blocks(s.kind, packed, b, 1, groups, room, 0, rows, s.outputs, scratch.data());
    for (long r = 0; r < rows; ++r) {
      for (long i = b * LANES; i < std::min(s.outputs, (b + 1) * LANES); ++i) {
        const long at = r * s.outputs + i;
        const float sum = scratch[at] + (s.bias ? s.bias[i] : 0.0f);
        s.to[at] = s.adds ? s.to[at] + sum : sum;
      }
    }
  }
}

}  // namespace

extern "C" {

// out (rows, outputs) = x (rows, groups * 32) W^T, all float32; ``packed`` is W as said above,
// ``room`` rows * groups * 72 bytes to work in.
void packed_product(int kind, const uint8_t* packed, const float* x, float* out, long rows,
                    long outputs, long groups, void* room, int threads) {
  const long blocks = (outputs + LANES - 1) / LANES;
  const Room rounded(room, rows, groups);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (long r = 0; r < rows; ++r)
      for (long at = r * groups; at < (r + 1) * groups; ++at)
        rounded.put(kind, x + at * GROUP, at);
    // A few rows at a time stay near while the whole matrix passes by.
    for (long row = 0; row < rows; row += AT_ONCE) {
#pragma omp for schedule(static) nowait
      for (long b = 0; b < blocks; b += 2)
        product_of_blocks(kind, packed, b, std::min(2L, blocks - b), groups, rounded, row,
                          std::min(rows, row + AT_ONCE), outputs, out);
    }
  }
}

// One new token for each of ``rows``, whose caches hold ``lengths`` already; ``room`` is for the
// widest input of a product.
void run_steps(const Step* steps, long count, long rows, const long* lengths, void* room,
               int threads) {
#pragma omp parallel num_threads(threads)
  {
    const int of = omp_get_num_threads(), who = omp_get_thread_num();
    std::vector<float> scratch;
    for (long n = 0; n < count; ++n) {
      const Step& s = steps[n];
      long first, last;
      const Room rounded(room, rows, s.width / GROUP);
      if (s.op == NORM) {
        share(rows, of, who, &first, &last);
        for (long r = first; r < last; ++r) norm_row(s, rounded, r);
      } else if (s.op == PRODUCT) {
        product_share(s, rounded, rows, of, who, scratch);
      } else if (s.op == ATTEND) {
        share(rows * s.heads, of, who, &first, &last);
        for (long i = first; i < last; ++i)
          (s.half ? attend_head<Bf16> : attend_head<float>)(s, rounded, i / s.heads, i % s.heads,
                                                            lengths[i / s.heads], scratch);
      } else if (s.op == GATE) {
        share(rows * (s.width / GROUP), of, who, &first, &last);
        for (long i = first; i < last; ++i) gate_group(s, rounded, i);
      } else {
        share(rows * s.width, of, who, &first, &last);
        for (long i = first; i < last; ++i) s.to[i] = s.eps * s.from[i] + s.scale * s.with[i];
      }
      if (s.wait) {
#pragma omp barrier
      }
    }
  }
}

}
