// Products of many rows with matrices as ``kernels/quantized.py:Packed`` stores them, for AVX-512: blocks
// of 16 outputs, so that a register holds one number of each output and no sum over lanes is taken. Two
// blocks (a panel) meet as many rows as there are registers for. What becomes of a sum (bias, activation,
// rounding for the next product, a residual) is done while it is near, by whoever is handed it.
// A row's result does not depend on the rows beside it.
#pragma once

#include "vector.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr long LANES = 16, GROUP = 32;
constexpr long ROWS_AT_ONCE = 192;  // of a product: they stay in the second-level cache
constexpr long PADDING = 64;  // bytes after a row: rows 4096 bytes apart would share cache sets
enum Kind { INT8 = 1, BF16 = 2, FLOAT = 3 };
enum Activation { SILU = 0, GELU_TANH = 1, RELU = 2, GELU = 4 };

constexpr long number_bytes(int kind) { return kind == INT8 ? 1 : kind == BF16 ? 2 : 4; }
constexpr long group_bytes(int kind) { return kind == INT8 ? 32 + 512 : kind == BF16 ? 1024 : 2048; }

// Have ``bytes`` (64 or more) in the cache, to be written to.
inline void ask(const void* at, long bytes) {
  for (long i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(at) + i, 1);
}

// Rows as a product of a kind multiplies them.
struct Room {
  uint8_t* numbers;  // ``stride`` bytes from row to row
  float* scales;     // INT8: (rows, groups)
  int32_t* sums;     // INT8: (rows, groups), of the numbers, times -128, which weights are raised by
  long stride, groups;

  static long bytes(int kind, long rows, long width) {
    return rows * (width * number_bytes(kind) + PADDING + width / GROUP * 8) + 256;
  }
  Room(int kind, void* at, long rows, long width)
      : numbers(static_cast<uint8_t*>(at)), stride(width * number_bytes(kind) + PADDING),
        groups(width / GROUP) {
    scales = reinterpret_cast<float*>(numbers + rows * stride);
    sums = reinterpret_cast<int32_t*>(scales + rows * groups);
  }

  // Row ``from`` becomes row ``to``, which does not lie after it.
  void move(long from, long to) const {
    std::memmove(numbers + to * stride, numbers + from * stride, stride);
    std::memmove(scales + to * groups, scales + from * groups, groups * sizeof(float));
    std::memmove(sums + to * groups, sums + from * groups, groups * sizeof(float));
  }

  template <int KIND>
  inline void near(long row, long column) const {
    ask(numbers + row * stride + column * number_bytes(KIND), GROUP * number_bytes(KIND));
  }

  // 32 neighbouring numbers of a row.
  template <int KIND>
  inline void put(long row, long column, __m512 a, __m512 b) const {
    uint8_t* to = numbers + row * stride + column * number_bytes(KIND);
    if (KIND == FLOAT) {
      _mm512_storeu_ps(reinterpret_cast<float*>(to), a);
      _mm512_storeu_ps(reinterpret_cast<float*>(to) + 16, b);
    } else if (KIND == BF16) {
      _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    } else {
      const float most = largest_size(a, b);
      const __m512 factor = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
      const __m512i p = _mm512_cvtps_epi32(_mm512_mul_ps(a, factor));
      const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(b, factor));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(p));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16), _mm512_cvtsepi32_epi8(q));
      const long at = row * groups + column / GROUP;
      scales[at] = most / 127.0f;
      sums[at] = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(p, q));
    }
  }
};

inline __m512i four(const uint8_t* from) {
  int32_t x;
  std::memcpy(&x, from, 4);
  return _mm512_set1_epi32(x);
}

// out (ROWS, 32): ROWS rows from ``x`` on with the blocks at ``w`` and ``w + apart``, ``groups`` deep.
// What lies at ``next`` and ``next + apart`` is asked for, ``share`` bytes of each. Whatever is done
// with the sums is not done here: compilers then keep them in registers.
template <int KIND, int ROWS>
__attribute__((noinline)) void tile(const uint8_t* x, long stride, const float* scales,
                                    const int32_t* sums, long all, const uint8_t* w, long apart,
                                    long groups, const uint8_t* next, long share, float* out) {
  __m512 sum[ROWS][2];
  for (int m = 0; m < ROWS; ++m) sum[m][0] = sum[m][1] = _mm512_setzero_ps();
  const uint8_t* base[(ROWS + 2) / 3];
  for (int m = 0; m < ROWS; m += 3) base[m / 3] = x + m * stride;
  const uint8_t* end = next + share;
  const long step = (share / groups + 63) / 64 * 64;
  for (long g = 0; g < groups; ++g, w += group_bytes(KIND)) {
    if constexpr (KIND == INT8) {
      __m512i part[ROWS][2];
      for (int m = 0; m < ROWS; ++m)
        part[m][0] = part[m][1] = _mm512_set1_epi32(sums[m * all + g]);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m512i one = _mm512_loadu_si512(w + 32 + 64 * j);
        const __m512i two = _mm512_loadu_si512(w + apart + 32 + 64 * j);
        for (int m = 0; m < ROWS; ++m) {
          const __m512i both = four(base[m / 3] + m % 3 * stride + 4 * j);
          part[m][0] = _mm512_dpbusd_epi32(part[m][0], one, both);
          part[m][1] = _mm512_dpbusd_epi32(part[m][1], two, both);
        }
      }
      for (int b = 0; b < 2; ++b) {
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(w + b * apart)));
        for (int m = 0; m < ROWS; ++m) {
          const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[m * all + g]));
          sum[m][b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[m][b]), both, sum[m][b]);
        }
      }
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < (KIND == BF16 ? 16 : 32); ++j) {
        const __m512i one = _mm512_loadu_si512(w + 64 * j);
        const __m512i two = _mm512_loadu_si512(w + apart + 64 * j);
        for (int m = 0; m < ROWS; ++m) {
          const __m512i both = four(base[m / 3] + m % 3 * stride + 4 * j);
          if constexpr (KIND == BF16) {
            sum[m][0] = _mm512_dpbf16_ps(sum[m][0], (__m512bh)one, (__m512bh)both);
            sum[m][1] = _mm512_dpbf16_ps(sum[m][1], (__m512bh)two, (__m512bh)both);
          } else {
            sum[m][0] = _mm512_fmadd_ps((__m512)one, (__m512)both, sum[m][0]);
            sum[m][1] = _mm512_fmadd_ps((__m512)two, (__m512)both, sum[m][1]);
          }
        }
      }
    }
    for (int m = 0; m < ROWS; m += 3) base[m / 3] += GROUP * number_bytes(KIND);
    for (const uint8_t* until = std::min(end, next + step); next < until; next += 64) {
      _mm_prefetch((const char*)next, _MM_HINT_T0);
      _mm_prefetch((const char*)next + apart, _MM_HINT_T0);
    }
  }
  for (int m = 0; m < ROWS; ++m)
    for (int b = 0; b < 2; ++b) _mm512_store_ps(out + m * GROUP + b * LANES, sum[m][b]);
}

// A matrix or a part of its depth: blocks of 16 outputs lie ``apart`` bytes from each other.
struct Matrix {
  const uint8_t* at;
  long apart, groups;
};

template <int KIND, int ROWS, class Emit>
inline void rows_of(const Room& x, long row, long group, const Matrix& w, long panel,
                    const uint8_t* next, long share, const Emit& emit) {
  alignas(64) float sum[ROWS * GROUP];
  for (int m = 0; m < ROWS; ++m) emit.near(row + m, panel * GROUP);
  tile<KIND, ROWS>(x.numbers + row * x.stride + group * GROUP * number_bytes(KIND), x.stride,
                   x.scales + row * x.groups + group, x.sums + row * x.groups + group, x.groups,
                   w.at + 2 * panel * w.apart, w.apart, w.groups, next, share, sum);
  for (int m = 0; m < ROWS; ++m) {
    const float* at = sum + m * GROUP;
    emit(row + m, panel * GROUP, _mm512_load_ps(at), _mm512_load_ps(at + LANES));
  }
}

// Rows ``first`` to ``last`` of x, from group ``group`` of each on, with one panel of w. Whoever emits
// is given a row, a column and the 32 sums from there on; ``near`` asks for the place before.
template <int KIND, class Emit>
void panel_product(const Room& x, long first, long last, long group, const Matrix& w, long panel,
                   bool more, const Emit& emit) {
  constexpr int MOST = KIND == INT8 ? 6 : 12;
  const long bytes = more ? w.groups * group_bytes(KIND) : 0;
  const long share = (bytes * MOST / std::max<long>(MOST, last - first) + 63) / 64 * 64;
  const uint8_t* next = w.at + 2 * (panel + 1) * w.apart;
  const uint8_t* end = next + bytes;
  auto part = [&] { return std::max(0L, std::min<long>(share, end - next)); };
  long m = first;
  for (; m + MOST <= last; m += MOST, next += share)
    rows_of<KIND, MOST>(x, m, group, w, panel, next, part(), emit);
  if (MOST > 8 && m + 8 <= last) {
    rows_of<KIND, 8>(x, m, group, w, panel, next, part(), emit);
    m += 8;
  }
  for (; m + 4 <= last; m += 4) rows_of<KIND, 4>(x, m, group, w, panel, next, 0, emit);
  for (; m < last; ++m) rows_of<KIND, 1>(x, m, group, w, panel, next, 0, emit);
}

// All outputs of a matrix whose depth is that of x, from group ``group`` on ``groups`` deep: shared
// out among the threads of a team, which do not wait for each other here.
template <int KIND, class Emit>
void product(const Room& x, long rows, const void* data, long outputs, long group, long groups,
             const Emit& emit) {
  const uint8_t* at = static_cast<const uint8_t*>(data) + group * group_bytes(KIND);
  const Matrix w{at, x.groups * group_bytes(KIND), groups};
  const long panels = outputs / GROUP, parts = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
  for (long part = 0; part < parts; ++part) {
#pragma omp for schedule(static) nowait
    for (long p = 0; p < panels; ++p)
      panel_product<KIND>(x, rows * part / parts, rows * (part + 1) / parts, group, w, p,
                          p + 1 < panels, emit);
  }
}

inline __m512 exp_of(__m512 x) {
  return exp2_of(_mm512_mul_ps(x, _mm512_set1_ps(1.4426950408889634f)));
}

// 1 / x: 14 bits, doubled by a step of Newton's, in a fraction of a division's time.
inline __m512 inverse(__m512 x) {
  const __m512 y = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.0f)));
}

// x Phi(x); 1 - erf(z) = t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + 0.3275911 z), for z >= 0, to
// 1.5e-7 (Abramowitz and Stegun, 7.1.26).
inline __m512 gelu(__m512 x) {
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.7071067811865476f));
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 t = inverse(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
  __m512 y = _mm512_set1_ps(1.061405429f);
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-1.453152027f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f));
  const __m512 e = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z)));
  const __m512 half = _mm512_mul_ps(_mm512_set1_ps(0.5f), _mm512_mul_ps(_mm512_mul_ps(y, t), e));
  // Phi(x) is 1 - half for x >= 0 and half below.
  const __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mul_ps(x, _mm512_mask_mov_ps(_mm512_sub_ps(one, half), below, half));
}

inline __m512 activated(int kind, __m512 x) {
  if (kind == GELU) return gelu(x);
  if (kind == RELU) return _mm512_max_ps(_mm512_setzero_ps(), x);  // so a NaN stays one
  __m512 z = x;  // SILU; GELU_TANH is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
  if (kind == GELU_TANH) {
    const __m512 cubic = _mm512_set1_ps(0.07135481627f), linear = _mm512_set1_ps(1.5957691216f);
    z = _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), cubic, linear));
  }
  const __m512 e = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), z));
  return _mm512_mul_ps(x, inverse(_mm512_add_ps(e, _mm512_set1_ps(1.0f))));
}

// What becomes of sums ------------------------------------------------------------------------

inline __m512 biased(__m512 x, const float* bias, long column) {
  return bias ? _mm512_add_ps(x, _mm512_loadu_ps(bias + column)) : x;
}

// to = sum + bias, as numbers of a kind.
template <int KIND>
struct Put {
  Room to;
  const float* bias;
  void near(long row, long column) const { to.near<KIND>(row, column); }
  void operator()(long row, long column, __m512 a, __m512 b) const {
    to.put<KIND>(row, column, biased(a, bias, column), biased(b, bias, column + 16));
  }
};

template <int KIND>
struct Activate {
  Room to;
  const float* bias;
  int kind;
  void near(long row, long column) const { to.near<KIND>(row, column); }
  void operator()(long row, long column, __m512 a, __m512 b) const {
    to.put<KIND>(row, column, activated(kind, biased(a, bias, column)),
                 activated(kind, biased(b, bias, column + 16)));
  }
};

// to += sum + bias.
struct Add {
  float* to;
  const float* bias;
  long width;
  void near(long row, long column) const { ask(to + row * width + column, 128); }
  void operator()(long row, long column, __m512 a, __m512 b) const {
    float* at = to + row * width + column;
    _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), biased(a, bias, column)));
    _mm512_storeu_ps(at + 16, _mm512_add_ps(_mm512_loadu_ps(at + 16), biased(b, bias, column + 16)));
  }
};

struct Scores {
  float* to;
  long width;
  void near(long row, long column) const { ask(to + row * width + column, 128); }
  void operator()(long row, long column, __m512 a, __m512 b) const {
    _mm512_storeu_ps(to + row * width + column, a);
    _mm512_storeu_ps(to + row * width + column + 16, b);
  }
};

// Rows of a head that are mixed from values, by weights that sum to ``sums``.
template <int KIND>
struct Mixed {
  Room to;
  const float* sums;
  long row, column;
  void near(long m, long c) const { to.near<KIND>(row + m, column + c); }
  void operator()(long m, long c, __m512 a, __m512 b) const {
    const __m512 by = _mm512_set1_ps(1.0f / sums[m]);
    to.put<KIND>(row + m, column + c, _mm512_mul_ps(a, by), _mm512_mul_ps(b, by));
  }
};

}  // namespace
