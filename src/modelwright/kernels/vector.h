// What the kernels share: bfloat16 in AVX-512 registers and fast exponentials.
#pragma once

#include <immintrin.h>

#include <cstdint>

using Bf16 = uint16_t;

inline __m512 load_bf16(const Bf16* from) {
  __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

inline void store_bf16(Bf16* to, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x));
}

// A mask of the first ``count`` lanes, at most all, at least none.
inline __mmask16 first_of(long count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// The largest size among 32 numbers; NaN where one is, which a maximum alone may pass over.
inline float largest_size(__m512 a, __m512 b) {
  const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
  return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) ? __builtin_nanf("") : most;
}

// 2^x; a polynomial of degree 5 on [-1/2, 1/2], relative error below 3e-7; x is cut to
// [-126, 126]. In this order of what is compared a NaN stays one.
inline __m512 exp2_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
  x = _mm512_min_ps(_mm512_set1_ps(126.0f), x);
  __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 f = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.3333558146428443e-3f);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.6181291076284772e-3f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.5504108664821580e-2f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022650695910071e-1f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718055994531e-1f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(y, whole);
}
