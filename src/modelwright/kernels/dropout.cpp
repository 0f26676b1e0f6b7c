// Dropout whose mask is a function of (seed, position): nothing is stored, the backward pass makes
// the same mask again, and the result does not depend on the number of threads.
//
// A number is kept when hash(seed + position) >= p 2^32; the hash is a 32-bit avalanche of two
// multiplications (the finaliser of MurmurHash3).

#include "vector.h"

namespace {

struct Mask {
  __m512i seed, limit;
  __m512 scale;

  // The factors (0 or 1 / (1 - p)) of 16 neighbouring positions.
  __m512 at(long position) const {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const int low = static_cast<int>(static_cast<uint32_t>(position));
    const int high = static_cast<int>(static_cast<uint64_t>(position) >> 32);
    __m512i h = _mm512_add_epi32(_mm512_set1_epi32(low), lane);
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32(static_cast<int>(0x9E3779B1u)));
    h = _mm512_add_epi32(h, _mm512_add_epi32(seed, _mm512_set1_epi32(high * 0x632BE5AB)));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32(static_cast<int>(0x85EBCA6Bu)));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 13));
    h = _mm512_mullo_epi32(h, _mm512_set1_epi32(static_cast<int>(0xC2B2AE35u)));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(h, limit), scale);
  }
};

}  // namespace

extern "C" {

// out = x * mask / (1 - p), for ``count`` numbers, float32 or (``half``) bfloat16.
void dropout(const void* x, void* out, long count, int half, long seed, double p, int threads) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  const double limit = p * 4294967296.0;
  const Mask mask{_mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(bits ^ (bits >> 32)))),
                  _mm512_set1_epi32(static_cast<int>(
                      limit >= 4294967295.0 ? 4294967295u : static_cast<uint32_t>(limit))),
                  _mm512_set1_ps(static_cast<float>(1.0 / (1.0 - p)))};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long i = 0; i < count; i += 16) {
    const __mmask16 some = first_of(count - i);
    const __m512 factor = mask.at(i);
    if (half) {
      const __m256i from = _mm256_maskz_loadu_epi16(some, static_cast<const Bf16*>(x) + i);
      const __m512 wide =
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(from), 16));
      _mm256_mask_storeu_epi16(static_cast<Bf16*>(out) + i, some,
                               narrow(_mm512_mul_ps(wide, factor)));
    } else {
      const __m512 from = _mm512_maskz_loadu_ps(some, static_cast<const float*>(x) + i);
      _mm512_mask_storeu_ps(static_cast<float*>(out) + i, some, _mm512_mul_ps(from, factor));
    }
  }
}
}
