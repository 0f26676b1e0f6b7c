// Batch normalisation of planes whose channels lie last, with the activation after it and the sum
// before that: two passes forward and two backward, for bfloat16.
//
//   u = (x - mean) / sqrt(variance + eps) * gain + bias (+ added),  y = act(u)
//
// Sums over rows are taken in parts whose bounds depend on the shape alone and joined in their
// order, so that no result depends on the number of threads.

#include "vector.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr long PARTS = 64;  // of the rows, at most
constexpr long TILE = 32;   // rows of a part, at least; so many go by before the next channels
constexpr long WIDE = 64;   // channels whose sums stay in registers
constexpr int LANES = WIDE / 16;

enum Act { NONE = 0, RELU = 1, GELU = 2 };

inline __m512 set(float x) { return _mm512_set1_ps(x); }

inline __m512 floats(const float* from, __mmask16 some) {
  return _mm512_maskz_loadu_ps(some, from);
}

inline __m512 at(const Bf16* from, __mmask16 some) {
  const __m256i half = _mm256_maskz_loadu_epi16(some, from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void put(Bf16* to, __mmask16 some, __m512 x) {
  _mm256_mask_storeu_epi16(to, some, narrow(x));
}

// The distribution function of the normal law at u, and e^(-u^2/2). Abramowitz and Stegun,
// formula 7.1.26: absolute error below 1e-7.
inline __m512 normal(__m512 u, __m512* bell) {
  const __m512 size = _mm512_abs_ps(u), one = set(1.0f);
  *bell = exp2_of(_mm512_mul_ps(_mm512_mul_ps(u, u), set(-0.72134752f)));
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, set(0.3275911f * 0.70710678f), one));
  __m512 p = set(1.061405429f);
  p = _mm512_fmadd_ps(p, t, set(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, set(1.421413741f));
  p = _mm512_fmadd_ps(p, t, set(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, set(0.254829592f));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(p, t), *bell), set(0.5f));
  const __mmask16 below = _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mask_blend_ps(below, _mm512_sub_ps(one, tail), tail);
}

template <int act>
inline __m512 activated(__m512 u) {
  // In this order a NaN stays one.
  if (act == RELU) return _mm512_max_ps(_mm512_setzero_ps(), u);
  if (act == NONE) return u;
  __m512 bell;
  return _mm512_mul_ps(u, normal(u, &bell));
}

// The gradient of u from that of act(u).
template <int act>
inline __m512 slope(__m512 g, __m512 u) {
  if (act == NONE) return g;
  if (act == RELU)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_GT_OQ), g);
  __m512 bell;
  const __m512 share = normal(u, &bell);
  const __m512 rise = _mm512_mul_ps(_mm512_mul_ps(u, bell), set(0.39894228f));
  return _mm512_mul_ps(g, _mm512_add_ps(share, rise));
}

// Two sums over rows of every channel, in parts of the rows that have sums of their own.
struct Sums {
  long rows, channels, parts;
  std::vector<float> first, second;  // (parts, channels) each

  Sums(long rows, long channels)
      : rows(rows), channels(channels), parts(std::max(1L, std::min(PARTS, rows / TILE))),
        first(parts * channels), second(parts * channels) {}

  // begin(channel, masks) gives what body keeps in registers for WIDE channels from ``channel``;
  // body(held, number, lane, mask, first, second) adds what number ``number`` of x gives.
  template <class Begin, class Body>
  void run(int threads, Begin begin, Body body) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long part = 0; part < parts; ++part) {
      const long end = rows * (part + 1) / parts;
      for (long top = rows * part / parts; top < end; top += TILE)
        for (long from = 0; from < channels; from += WIDE) {
          float* sums[] = {&first[part * channels + from], &second[part * channels + from]};
          __mmask16 some[LANES];
          __m512 one[LANES], two[LANES];
          for (int k = 0; k < LANES; ++k) {
            some[k] = first_of(channels - from - 16 * k);
            one[k] = floats(sums[0] + 16 * k, some[k]);
            two[k] = floats(sums[1] + 16 * k, some[k]);
          }
          const auto held = begin(from, some);
          for (long r = top; r < std::min(end, top + TILE); ++r)
            for (int k = 0; k < LANES; ++k)
              body(held, r * channels + from + 16 * k, k, some[k], one[k], two[k]);
          for (int k = 0; k < LANES; ++k) {
            _mm512_mask_storeu_ps(sums[0] + 16 * k, some[k], one[k]);
            _mm512_mask_storeu_ps(sums[1] + 16 * k, some[k], two[k]);
          }
        }
    }
  }

  // Both sums of every channel.
  void join(std::vector<double>& one, std::vector<double>& two) const {
    for (long p = 0; p < parts; ++p)
      for (long c = 0; c < channels; ++c) {
        one[c] += first[p * channels + c];
        two[c] += second[p * channels + c];
      }
  }
};

struct Held {
  __m512 a[LANES], b[LANES], mean[LANES];
};

template <int act, bool sums>
void forward_rows(const Bf16* x, const Bf16* added, const float* a, const float* b, Bf16* y,
                  long rows, long channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < channels; c += 16) {
      const __mmask16 some = first_of(channels - c);
      const long i = r * channels + c;
      __m512 u = _mm512_fmadd_ps(at(x + i, some), floats(a + c, some), floats(b + c, some));
      if (sums) u = _mm512_add_ps(u, at(added + i, some));
      put(y + i, some, activated<act>(u));
    }
}

// Pass one: sums of g and of g (x - mean), g the gradient of u, written to ``kept`` where it is
// that of ``added`` as well. Pass two: dx = a g + k x + d.
template <int act, bool sums>
void backward_rows(const Bf16* dy, const Bf16* x, const Bf16* y, const float* a, const float* b,
                   const float* mean, const float* root, Bf16* dx, Bf16* kept, float* d_gain,
                   float* d_bias, long rows, long channels, int threads) {
  Sums sums_of(rows, channels);
  sums_of.run(
      threads,
      [&](long from, const __mmask16* some) {
        Held held;
        for (int k = 0; k < LANES; ++k) {
          held.a[k] = floats(a + from + 16 * k, some[k]);
          held.b[k] = floats(b + from + 16 * k, some[k]);
          held.mean[k] = floats(mean + from + 16 * k, some[k]);
        }
        return held;
      },
      [&](const Held& held, long i, int k, __mmask16 some, __m512& one, __m512& two) {
        const __m512 v = at(x + i, some);
        const __m512 u = sums ? at(y + i, some) : _mm512_fmadd_ps(v, held.a[k], held.b[k]);
        const __m512 g = slope<act>(at(dy + i, some), u);
        if (sums) put(kept + i, some, g);
        one = _mm512_add_ps(one, g);
        two = _mm512_fmadd_ps(g, _mm512_sub_ps(v, held.mean[k]), two);
      });
  std::vector<double> one(channels), two(channels);
  sums_of.join(one, two);
  std::vector<float> times(channels), plus(channels);
  for (long c = 0; c < channels; ++c) {
    d_bias[c] = static_cast<float>(one[c]);
    d_gain[c] = static_cast<float>(two[c] * root[c]);
    const double k = -two[c] * root[c] * root[c] / rows * a[c];
    times[c] = static_cast<float>(k);
    plus[c] = static_cast<float>(-a[c] * one[c] / rows - k * mean[c]);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < channels; c += 16) {
      const __mmask16 some = first_of(channels - c);
      const long i = r * channels + c;
      const __m512 v = at(x + i, some), scale = floats(a + c, some);
      __m512 g;
      if (sums) {
        g = at(kept + i, some);
      } else {
        g = slope<act>(at(dy + i, some), _mm512_fmadd_ps(v, scale, floats(b + c, some)));
      }
      const __m512 rest = _mm512_fmadd_ps(v, floats(&times[c], some), floats(&plus[c], some));
      put(dx + i, some, _mm512_fmadd_ps(g, scale, rest));
    }
}

}  // namespace

// Every function returns 0, or 1 where memory is short.
extern "C" {

// y = act((x - mean) * root * gain + bias + added) for x (rows, channels). Also given back: the
// mean and root = 1 / sqrt(variance + eps) of every channel, and the scale a and offset b that
// they come to. The running statistics take a share ``momentum`` of the mean and of the unbiased
// variance, where all of these are finite. ``added`` may be null.
int batch_norm(const Bf16* x, const Bf16* added, const float* gain, const float* bias,
               float* running_mean, float* running_variance, float* mean, float* root, float* a,
               float* b, Bf16* y, long rows, long channels, long act, float eps, float momentum,
               int threads) try {
  Sums sums_of(rows, channels);
  // Of the differences to the first row: a mean far from zero costs no digits.
  sums_of.run(
      threads,
      [&](long from, const __mmask16* some) {
        Held held;
        for (int k = 0; k < LANES; ++k) held.mean[k] = at(x + from + 16 * k, some[k]);
        return held;
      },
      [&](const Held& held, long i, int k, __mmask16 some, __m512& one, __m512& two) {
        const __m512 v = _mm512_sub_ps(at(x + i, some), held.mean[k]);
        one = _mm512_add_ps(one, v);
        two = _mm512_fmadd_ps(v, v, two);
      });
  std::vector<double> one(channels), two(channels);
  sums_of.join(one, two);
  const double share = momentum, spread = rows > 1 ? rows / (rows - 1.0) : 1.0;
  for (long c = 0; c < channels; ++c) {
    const double shifted = one[c] / rows;
    double variance = two[c] / rows - shifted * shifted;
    if (variance < 0) variance = 0;
    const uint32_t bits = static_cast<uint32_t>(x[c]) << 16;
    float shift;
    __builtin_memcpy(&shift, &bits, sizeof shift);
    const double middle = shift + shifted;
    mean[c] = static_cast<float>(middle);
    root[c] = static_cast<float>(1.0 / std::sqrt(variance + eps));
    a[c] = gain[c] * root[c];
    b[c] = bias[c] - mean[c] * a[c];
    const double new_mean = (1 - share) * running_mean[c] + share * middle;
    const double new_variance = (1 - share) * running_variance[c] + share * variance * spread;
    if (std::isfinite(new_mean) && std::isfinite(new_variance)) {
      running_mean[c] = static_cast<float>(new_mean);
      running_variance[c] = static_cast<float>(new_variance);
    }
  }
  auto rows_of = added ? (act == RELU ? forward_rows<RELU, true> : forward_rows<NONE, true>)
                 : act == RELU ? forward_rows<RELU, false>
                 : act == GELU ? forward_rows<GELU, false>
                               : forward_rows<NONE, false>;
  rows_of(x, added, a, b, y, rows, channels, threads);
  return 0;
} catch (...) {
  return 1;
}

// The gradients of x, gain, bias and, as ``kept``, of what was added; ``kept`` and ``y`` are null
// where nothing was.
int batch_norm_backward(const Bf16* dy, const Bf16* x, const Bf16* y, const float* a,
                        const float* b, const float* mean, const float* root, Bf16* dx, Bf16* kept,
                        float* d_gain, float* d_bias, long rows, long channels, long act,
                        int threads) try {
  auto rows_of = kept ? (act == RELU ? backward_rows<RELU, true> : backward_rows<NONE, true>)
                 : act == RELU ? backward_rows<RELU, false>
                 : act == GELU ? backward_rows<GELU, false>
                               : backward_rows<NONE, false>;
  rows_of(dy, x, y, a, b, mean, root, dx, kept, d_gain, d_bias, rows, channels, threads);
  return 0;
} catch (...) {
  return 1;
}
}
