// What surrounds the matrix products of a block, each in one pass forward and one backward: RMSNorm,
// RMSNorm of heads with their rotation, squared ReLU, and a sum of two tensors with learned scales.
//
// Sums over rows (the gradients of gains and scales) are taken in CHUNKS parts of fixed bounds and
// joined in their order, so that no result depends on the number of threads.

#include "vector.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr long CHUNKS = 64;

// A tensor of float32 or bfloat16; ``at`` counts in numbers.
struct In {
  const void* data;
  int half;

  __m512 at(long i, __mmask16 some) const {
    if (!half) return _mm512_maskz_loadu_ps(some, static_cast<const float*>(data) + i);
    const __m256i from = _mm256_maskz_loadu_epi16(some, static_cast<const Bf16*>(data) + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(from), 16));
  }
};

struct Out {
  void* data;
  int half;

  void put(long i, __mmask16 some, __m512 x) const {
    if (half) {
      _mm256_mask_storeu_epi16(static_cast<Bf16*>(data) + i, some, narrow(x));
    } else {
      _mm512_mask_storeu_ps(static_cast<float*>(data) + i, some, x);
    }
  }
};

inline __m512 gains(const float* gain, long i, __mmask16 some) {
  return _mm512_maskz_loadu_ps(some, gain + i);
}

// 1 / sqrt(mean(x^2) + eps) of ``width`` numbers from ``from``.
inline float inverse_root(const In& x, long from, long width, float eps) {
  __m512 sum = _mm512_setzero_ps();
  for (long i = 0; i < width; i += 16) {
    const __m512 v = x.at(from + i, first_of(width - i));
    sum = _mm512_fmadd_ps(v, v, sum);
  }
  return 1.0f / std::sqrt(_mm512_reduce_add_ps(sum) / static_cast<float>(width) + eps);
}

// The bounds of chunk ``c`` of ``rows``.
inline long bound(long rows, long c) { return rows * c / CHUNKS; }

inline void join(const std::vector<float>& parts, long width, float* into) {
  for (long c = 0; c < CHUNKS; ++c)
    for (long i = 0; i < width; ++i) into[i] += parts[c * width + i];
}

}  // namespace

// Every function returns 0, or 1 where memory is short.
extern "C" {

// out = x * root * gain, root = 1 / sqrt(mean(x^2) + eps), for rows (rows, width).
int rms_norm(const void* x, int x_half, const float* gain, void* out, int out_half, float* roots,
             long rows, long width, float eps, int threads) {
  const In from{x, x_half};
  const Out to{out, out_half};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long r = 0; r < rows; ++r) {
    const float root = roots[r] = inverse_root(from, r * width, width, eps);
    const __m512 scale = _mm512_set1_ps(root);
    for (long i = 0; i < width; i += 16) {
      const __mmask16 some = first_of(width - i);
      const __m512 y = _mm512_mul_ps(from.at(r * width + i, some), scale);
      to.put(r * width + i, some, _mm512_mul_ps(y, gains(gain, i, some)));
    }
  }
  return 0;
}

// With y = x * root and h = g * gain: dx = root * (h - y * mean(h y)), d gain = sum over rows of g y.
int rms_norm_backward(const void* g, int g_half, const void* x, int x_half, const float* gain,
                      const float* roots, void* dx, float* d_gain, long rows, long width,
                      int threads) try {
  const In grad{g, g_half}, from{x, x_half};
  const Out to{dx, x_half};
  std::vector<float> parts(CHUNKS * width, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long c = 0; c < CHUNKS; ++c) {
    float* part = parts.data() + c * width;
    for (long r = bound(rows, c); r < bound(rows, c + 1); ++r) {
      const __m512 scale = _mm512_set1_ps(roots[r]);
      __m512 sum = _mm512_setzero_ps();
      for (long i = 0; i < width; i += 16) {
        const __mmask16 some = first_of(width - i);
        const __m512 slope = grad.at(r * width + i, some);
        const __m512 y = _mm512_mul_ps(from.at(r * width + i, some), scale);
        const __m512 sy = _mm512_mul_ps(slope, y);
        _mm512_mask_storeu_ps(part + i, some, _mm512_add_ps(gains(part, i, some), sy));
        sum = _mm512_fmadd_ps(sy, gains(gain, i, some), sum);
      }
      const __m512 mean =
          _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(width));
      for (long i = 0; i < width; i += 16) {
        const __mmask16 some = first_of(width - i);
        const __m512 h = _mm512_mul_ps(grad.at(r * width + i, some), gains(gain, i, some));
        const __m512 y = _mm512_mul_ps(from.at(r * width + i, some), scale);
        to.put(r * width + i, some, _mm512_mul_ps(scale, _mm512_fnmadd_ps(y, mean, h)));
      }
    }
  }
  join(parts, width, d_gain);
  return 0;
} catch (...) {
  return 1;
}

// Heads x (rows, heads, 2 pairs) of bfloat16, normalised, times gain, rotated by the angles of
// their row: (a, b) -> (a cos - b sin, b cos + a sin) for the halves a and b; cos (rows, pairs).
int norm_rotate(const Bf16* x, const float* gain, const float* cos, const float* sin, Bf16* out,
                float* roots, long rows, long heads, long pairs, float eps, int threads) {
  const In from{x, 1};
  const Out to{out, 1};
  const long width = 2 * pairs;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long r = 0; r < rows; ++r)
    for (long h = 0; h < heads; ++h) {
      const long at = (r * heads + h) * width;
      const float root = roots[r * heads + h] = inverse_root(from, at, width, eps);
      const __m512 scale = _mm512_set1_ps(root);
      for (long i = 0; i < pairs; i += 16) {
        const __mmask16 some = first_of(pairs - i);
        const __m512 c = gains(cos + r * pairs, i, some), s = gains(sin + r * pairs, i, some);
        const __m512 a = _mm512_mul_ps(_mm512_mul_ps(from.at(at + i, some), scale),
                                       gains(gain, i, some));
        const __m512 b = _mm512_mul_ps(_mm512_mul_ps(from.at(at + pairs + i, some), scale),
                                       gains(gain + pairs, i, some));
        to.put(at + i, some, _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c)));
        to.put(at + pairs + i, some, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
      }
    }
  return 0;
}

// The gradient turned back, then that of the norm.
int norm_rotate_backward(const Bf16* g, const Bf16* x, const float* gain, const float* cos,
                         const float* sin, const float* roots, Bf16* dx, float* d_gain, long rows,
                         long heads, long pairs, int threads) try {
  const In grad{g, 1}, from{x, 1};
  const Out to{dx, 1};
  const long width = 2 * pairs;
  std::vector<float> parts(CHUNKS * width, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long chunk = 0; chunk < CHUNKS; ++chunk) {
    float* part = parts.data() + chunk * width;
    for (long r = bound(rows, chunk); r < bound(rows, chunk + 1); ++r)
      for (long h = 0; h < heads; ++h) {
        const long at = (r * heads + h) * width;
        const __m512 scale = _mm512_set1_ps(roots[r * heads + h]);
        __m512 sum = _mm512_setzero_ps();
        for (int pass = 0; pass < 2; ++pass) {
          const __m512 mean =
              _mm512_set1_ps(pass ? _mm512_reduce_add_ps(sum) / static_cast<float>(width) : 0.0f);
          for (long i = 0; i < pairs; i += 16) {
            const __mmask16 some = first_of(pairs - i);
            const __m512 c = gains(cos + r * pairs, i, some), s = gains(sin + r * pairs, i, some);
            const __m512 ga = grad.at(at + i, some), gb = grad.at(at + pairs + i, some);
            const __m512 ta = _mm512_fmadd_ps(gb, s, _mm512_mul_ps(ga, c));
            const __m512 tb = _mm512_fnmadd_ps(ga, s, _mm512_mul_ps(gb, c));
            const __m512 ya = _mm512_mul_ps(from.at(at + i, some), scale);
            const __m512 yb = _mm512_mul_ps(from.at(at + pairs + i, some), scale);
            const __m512 wa = gains(gain, i, some), wb = gains(gain + pairs, i, some);
            if (!pass) {
              const __m512 sa = _mm512_mul_ps(ta, ya), sb = _mm512_mul_ps(tb, yb);
              float* pa = part + i;
              float* pb = part + pairs + i;
              _mm512_mask_storeu_ps(pa, some, _mm512_add_ps(gains(pa, 0, some), sa));
              _mm512_mask_storeu_ps(pb, some, _mm512_add_ps(gains(pb, 0, some), sb));
              sum = _mm512_fmadd_ps(sa, wa, _mm512_fmadd_ps(sb, wb, sum));
            } else {
              const __m512 da = _mm512_fnmadd_ps(ya, mean, _mm512_mul_ps(ta, wa));
              const __m512 db = _mm512_fnmadd_ps(yb, mean, _mm512_mul_ps(tb, wb));
              to.put(at + i, some, _mm512_mul_ps(scale, da));
              to.put(at + pairs + i, some, _mm512_mul_ps(scale, db));
            }
          }
        }
      }
  }
  join(parts, width, d_gain);
  return 0;
} catch (...) {
  return 1;
}

// x = max(x, 0)^2 in its place, for bfloat16; with a gradient ``g`` that becomes the slope in its
// place: g = 2 sqrt(x) g, where x is the square: the root of a rounded square is nearer to
// max(x, 0) than rounding leaves that itself.
int relu_squared(Bf16* x, Bf16* g, long count, int threads) {
  const In from{x, 1}, grad{g, 1};
  const Out to{g ? g : x, 1};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < count; i += 16) {
    const __mmask16 some = first_of(count - i);
    const __m512 v = from.at(i, some);
    if (g) {
      const __m512 twice = _mm512_mul_ps(_mm512_set1_ps(2.0f), _mm512_sqrt_ps(v));
      to.put(i, some, _mm512_mul_ps(twice, grad.at(i, some)));
    } else {
      const __m512 y = _mm512_max_ps(_mm512_setzero_ps(), v);  // so a NaN stays one
      to.put(i, some, _mm512_mul_ps(y, y));
    }
  }
  return 0;
}

// out = scales[0] x + scales[1] y.
int mix(const float* scales, const void* x, int x_half, const void* y, int y_half, void* out,
        long count, int threads) {
  const In one{x, x_half}, other{y, y_half};
  const Out to{out, x_half};
  const __m512 a = _mm512_set1_ps(scales[0]), b = _mm512_set1_ps(scales[1]);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < count; i += 16) {
    const __mmask16 some = first_of(count - i);
    to.put(i, some,
           _mm512_fmadd_ps(a, one.at(i, some), _mm512_mul_ps(b, other.at(i, some))));
  }
  return 0;
}

// dx = scales[0] g, dy = scales[1] g, d_scales = (sum(g x), sum(g y)).
int mix_backward(const float* scales, const void* g, const void* x, int x_half, const void* y,
                 int y_half, void* dx, void* dy, float* d_scales, long count, int threads) try {
  const In grad{g, x_half}, one{x, x_half}, other{y, y_half};
  const Out to_x{dx, x_half}, to_y{dy, y_half};
  const __m512 a = _mm512_set1_ps(scales[0]), b = _mm512_set1_ps(scales[1]);
  const long blocks = (count + 15) / 16;
  std::vector<float> parts(CHUNKS * 2, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long c = 0; c < CHUNKS; ++c) {
    __m512 sum_x = _mm512_setzero_ps(), sum_y = _mm512_setzero_ps();
    for (long i = 16 * bound(blocks, c); i < std::min(count, 16 * bound(blocks, c + 1)); i += 16) {
      const __mmask16 some = first_of(count - i);
      const __m512 slope = grad.at(i, some);
      sum_x = _mm512_fmadd_ps(slope, one.at(i, some), sum_x);
      sum_y = _mm512_fmadd_ps(slope, other.at(i, some), sum_y);
      to_x.put(i, some, _mm512_mul_ps(a, slope));
      to_y.put(i, some, _mm512_mul_ps(b, slope));
    }
    parts[2 * c] = _mm512_reduce_add_ps(sum_x);
    parts[2 * c + 1] = _mm512_reduce_add_ps(sum_y);
  }
  join(parts, 2, d_scales);
  return 0;
} catch (...) {
  return 1;
}
}
