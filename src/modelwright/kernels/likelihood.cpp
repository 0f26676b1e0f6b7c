// Negative log-likelihood of targets under softly capped logits, and its gradient in place.
//
// For a row z of bfloat16 logits and its target y, with s = c tanh(z / c) (or s = z without a
// cap): loss = log sum_j exp(s_j) - s_y, and z_j becomes (softmax(s)_j - [j = y]) (1 - (s_j/c)^2).
// One row is read twice and written once while it lies in the first or second cache.

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "vector.h"

namespace {

constexpr float kLog2E = 1.4426950408889634f;

// tanh(x) = 1 - 2 / (1 + e^(2 x))
__m512 tanh_of(__m512 x) {
  __m512 e = exp2_of(_mm512_mul_ps(x, _mm512_set1_ps(2.0f * kLog2E)));
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(one, e)));
}

__m512 load_some(const Bf16* from, __mmask16 mask) {
  __m256i half = _mm256_maskz_loadu_epi16(mask, from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// e: scratch of the row's length for exp(s - top); t: scratch for tanh(z / c).
double row_of(Bf16* z, long size, long target, float cap, float* e, float* t) {
  const __m512 lowest = _mm512_set1_ps(-INFINITY);
  __m512 most = lowest;
  for (long j = 0; j < size; j += 16) {
    const __mmask16 mask = first_of(size - j);
    __m512 s = load_some(z + j, mask);
    if (cap > 0) {
      __m512 bent = tanh_of(_mm512_div_ps(s, _mm512_set1_ps(cap)));
      _mm512_mask_storeu_ps(t + j, mask, bent);
      s = _mm512_mul_ps(bent, _mm512_set1_ps(cap));
    }
    _mm512_mask_storeu_ps(e + j, mask, s);
    most = _mm512_mask_max_ps(most, mask, most, s);
  }
  const float top = _mm512_reduce_max_ps(most), wanted = e[target];
  __m512 total = _mm512_setzero_ps();
  for (long j = 0; j < size; j += 16) {
    const __mmask16 mask = first_of(size - j);
    __m512 s = _mm512_maskz_loadu_ps(mask, e + j);
    s = _mm512_mul_ps(_mm512_sub_ps(s, _mm512_set1_ps(top)), _mm512_set1_ps(kLog2E));
    s = _mm512_maskz_mov_ps(mask, exp2_of(s));
    _mm512_mask_storeu_ps(e + j, mask, s);
    total = _mm512_add_ps(total, s);
  }
  const float sum = _mm512_reduce_add_ps(total);
  const __m512 by = _mm512_set1_ps(1.0f / sum), one = _mm512_set1_ps(1.0f);
  e[target] -= sum;
  for (long j = 0; j < size; j += 16) {
    const __mmask16 mask = first_of(size - j);
    __m512 slope = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, e + j), by);
    if (cap > 0) {
      __m512 bent = _mm512_maskz_loadu_ps(mask, t + j);
      slope = _mm512_mul_ps(slope, _mm512_fnmadd_ps(bent, bent, one));
    }
    _mm256_mask_storeu_epi16(z + j, mask, narrow(slope));
  }
  return static_cast<double>(top) + std::log(static_cast<double>(sum)) - wanted;
}

}  // namespace

extern "C" {

// The loss of every row; logits (rows, size) become its gradient. 1 where memory was short.
int likelihoods(Bf16* logits, const int64_t* targets, long rows, long size, float cap, int threads,
                double* losses) {
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    float* scratch = static_cast<float*>(std::malloc(2 * size * sizeof(float)));
    failed |= scratch == nullptr;
#pragma omp for schedule(static)
    for (long i = 0; i < rows; i++)
      if (!failed) losses[i] = row_of(logits + i * size, size, targets[i], cap, scratch, scratch + size);
    std::free(scratch);
  }
  return failed;
}

// The summed loss. Rows are summed in a fixed order, so the result does not depend on the threads.
// -1e300 where memory was short.
double likelihood(Bf16* logits, const int64_t* targets, long rows, long size, float cap,
                  int threads) {
  double* losses = static_cast<double*>(std::malloc(rows * sizeof(double)));
  double total = 0;
  if (losses == nullptr || likelihoods(logits, targets, rows, size, cap, threads, losses))
    total = -1e300;
  else
    for (long i = 0; i < rows; i++) total += losses[i];
  std::free(losses);
  return total;
}

// into += from, for as many numbers; PyTorch widens to a copy first.
void accumulate(float* into, const Bf16* from, long count, int threads) {
  const long whole = count / 16 * 16;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < whole; i += 16)
    _mm512_storeu_ps(into + i, _mm512_add_ps(_mm512_loadu_ps(into + i), load_bf16(from + i)));
  for (long i = whole; i < count; i++) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    into[i] += value;
  }
}
}
