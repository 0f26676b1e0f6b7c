// Grouped-query attention in bfloat16 over documents of different lengths, forward and backward,
// for processors with AVX-512 BF16.
//
// All rows of all documents stand one after another: q (rows, heads, width), k and v
// (rows, kv_heads, width), documents [starts[i], starts[i + 1]). A row sees its own document: when
// causal, only itself and what stands before it. Products are bfloat16 pairs summed in float32 (vdpbf16ps); softmax
// is float32. With s = scale * q k^T, p = softmax(s), o = p v the gradients are (arXiv:2205.14135)
//     dv = p^T do,  dp = do v^T,  ds = p * (dp - rowsum(do * o)),  dq = scale ds k,
//     dk = scale ds^T q.
// One task is one document and one kv head: keys and values are packed once, and its working set
// stays in a second-level cache.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "vector.h"

namespace {

using Pair = int32_t;  // two neighbouring bfloat16 values, the unit of vdpbf16ps

constexpr long kRows = 64;      // query rows worked on together
constexpr long kColumns = 128;  // keys worked on together in the backward pass
constexpr float kLog2E = 1.4426950408889634f;

long round_up(long n, long unit) { return (n + unit - 1) / unit * unit; }

// c (M x 16 NV) = or += a (M x pairs) b (pairs x 16 NV). Pair (m, j) of a is a[m * am + j * aj],
// row j of b is b[j * ldb ...]: its 16-bit halves are rows 2 j and 2 j + 1 of the matrix.
template <int M, int NV>
inline void tile(const Pair* a, long am, long aj, const Pair* b, long ldb, float* c, long ldc,
                 long pairs, bool add) {
  __m512 sum[M][NV];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < NV; v++)
      sum[m][v] = add ? _mm512_loadu_ps(c + m * ldc + 16 * v) : _mm512_setzero_ps();
  for (long j = 0; j < pairs; j++) {
    __m512bh right[NV];
    for (int v = 0; v < NV; v++) right[v] = (__m512bh)_mm512_loadu_si512(b + j * ldb + 16 * v);
    for (int m = 0; m < M; m++) {
      __m512bh left = (__m512bh)_mm512_set1_epi32(a[m * am + j * aj]);
      for (int v = 0; v < NV; v++) sum[m][v] = _mm512_dpbf16_ps(sum[m][v], left, right[v]);
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < NV; v++) _mm512_storeu_ps(c + m * ldc + 16 * v, sum[m][v]);
}

template <int NV>
void strip(long rows, const Pair* a, long am, long aj, const Pair* b, long ldb, float* c, long ldc,
           long pairs, bool add) {
  long m = 0;
  for (; m + 6 <= rows; m += 6)
    tile<6, NV>(a + m * am, am, aj, b, ldb, c + m * ldc, ldc, pairs, add);
  const Pair* rest = a + m * am;
  float* out = c + m * ldc;
  switch (rows - m) {
    case 5: tile<5, NV>(rest, am, aj, b, ldb, out, ldc, pairs, add); break;
    case 4: tile<4, NV>(rest, am, aj, b, ldb, out, ldc, pairs, add); break;
    case 3: tile<3, NV>(rest, am, aj, b, ldb, out, ldc, pairs, add); break;
    case 2: tile<2, NV>(rest, am, aj, b, ldb, out, ldc, pairs, add); break;
    case 1: tile<1, NV>(rest, am, aj, b, ldb, out, ldc, pairs, add); break;
    default: break;
  }
}

// The same for any number of columns that is a multiple of 16.
void product(long rows, long columns, const Pair* a, long am, long aj, const Pair* b, long ldb,
             float* c, long ldc, long pairs, bool add) {
  long n = 0;
  for (; n + 64 <= columns; n += 64)
    strip<4>(rows, a, am, aj, b + n, ldb, c + n, ldc, pairs, add);
  switch ((columns - n) / 16) {
    case 3: strip<3>(rows, a, am, aj, b + n, ldb, c + n, ldc, pairs, add); break;
    case 2: strip<2>(rows, a, am, aj, b + n, ldb, c + n, ldc, pairs, add); break;
    case 1: strip<1>(rows, a, am, aj, b + n, ldb, c + n, ldc, pairs, add); break;
    default: break;
  }
}

// to[j][n] = pair j of row n: the transpose of (rows, width) as pairs, zero beyond the rows.
void pack_transposed(const Bf16* from, long stride, long rows, long padded, long width, Pair* to) {
  __m512i index = _mm512_mullo_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
      _mm512_set1_epi32(static_cast<int>(stride / 2)));
  for (long n = 0; n < padded; n += 16) {
    long left = std::min<long>(16, std::max<long>(0, rows - n));
    __mmask16 mask = static_cast<__mmask16>((1u << left) - 1);
    const Pair* base = reinterpret_cast<const Pair*>(from + n * stride);
    for (long j = 0; j < width / 2; j++) {
      __m512i x = left ? _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, index, base + j, 4)
                       : _mm512_setzero_si512();
      _mm512_storeu_si512(to + j * padded + n, x);
    }
  }
}

// to[j][d] = values d of rows 2 j and 2 j + 1, zero beyond the rows.
void pack_interleaved(const Bf16* from, long stride, long rows, long padded, long width, Pair* to) {
  for (long n = 0; n < padded; n += 2)
    for (long d = 0; d < width; d += 16) {
      const __m256i zero = _mm256_setzero_si256();
      auto at = [&](long row) {
        return row < rows ? _mm256_loadu_si256(
                                reinterpret_cast<const __m256i*>(from + row * stride + d))
                          : zero;
      };
      __m512i low = _mm512_cvtepu16_epi32(at(n));
      __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(at(n + 1)), 16);
      _mm512_storeu_si512(to + n / 2 * width + d, _mm512_or_si512(low, high));
    }
}

struct Shape {
  long heads, kv_heads, width;
  bool causal;
  long group() const { return heads / kv_heads; }
  // How many of ``all`` rows row number ``row`` sees.
  long seen(long row, long all) const { return causal ? row + 1 : all; }
};

struct Task {
  long start, rows, kv;
};

// Documents x kv heads, the longest first: what is left at the end is short.
std::vector<Task> tasks_of(const int64_t* starts, long documents, long kv_heads) {
  std::vector<Task> tasks;
  for (long i = 0; i < documents; i++)
    for (long h = 0; h < kv_heads; h++)
      if (starts[i + 1] > starts[i]) tasks.push_back({starts[i], starts[i + 1] - starts[i], h});
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.rows > b.rows; });
  return tasks;
}

// Scratch memory of one thread, grown and never shrunk within a call.
class Arena {
 public:
  ~Arena() { std::free(memory_); }
  // False where there is not so much memory.
  bool reserve(size_t bytes) {
    used_ = 0;
    if (bytes <= size_) return true;
    std::free(memory_);
    size_ = round_up(bytes, 4096);
    memory_ = static_cast<char*>(std::aligned_alloc(64, size_));
    if (memory_ == nullptr) size_ = 0;
    return memory_ != nullptr;
  }
  template <class T>
  T* take(long count) {
    T* start = reinterpret_cast<T*>(memory_ + used_);
    used_ += round_up(count * sizeof(T), 64);
    return start;
  }

 private:
  char* memory_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

// Softmax numerators of one row of scores, as bfloat16 with zeros up to ``limit``; returns the
// row's maximum of s * factor and the sum of the numerators, both for base 2.
void softmax_row(const float* s, long seen, long limit, float factor, Bf16* p, float* top,
                 float* sum) {
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (long n = 0; n < seen; n += 16)
    most = _mm512_mask_max_ps(most, first_of(seen - n), most, _mm512_loadu_ps(s + n));
  *top = _mm512_reduce_max_ps(most) * factor;
  __m512 total = _mm512_setzero_ps(), shift = _mm512_set1_ps(*top), by = _mm512_set1_ps(factor);
  for (long n = 0; n < limit; n += 16) {
    __mmask16 mask = first_of(seen - n);
    __m512 x = _mm512_setzero_ps();
    if (mask) {
      x = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + n), by, shift));
      x = _mm512_maskz_mov_ps(mask, x);
      total = _mm512_add_ps(total, x);
    }
    store_bf16(p + n, x);
  }
  *sum = _mm512_reduce_add_ps(total);
}

bool forward_task(const Task& t, const Shape& z, const Bf16* q, const Bf16* k, const Bf16* v,
                  Bf16* out, float* lse, long all_rows, float scale, Arena& arena) {
  const long d = z.width, padded = round_up(t.rows, 64);
  const long kv_stride = z.kv_heads * d, q_stride = z.heads * d;
  if (!arena.reserve(4 * (padded * d + kRows * padded) + 2 * kRows * padded + 4 * kRows * d + 4096))
    return false;
  Pair* keys = arena.take<Pair>(padded / 2 * d);
  Pair* values = arena.take<Pair>(padded / 2 * d);
  float* scores = arena.take<float>(kRows * padded);
  Bf16* p = arena.take<Bf16>(kRows * padded);
  float* mixed = arena.take<float>(kRows * d);
  pack_transposed(k + t.start * kv_stride + t.kv * d, kv_stride, t.rows, padded, d, keys);
  pack_interleaved(v + t.start * kv_stride + t.kv * d, kv_stride, t.rows, padded, d, values);
  for (long h = t.kv * z.group(); h < (t.kv + 1) * z.group(); h++)
    for (long first = 0; first < t.rows; first += kRows) {
      const long rows = std::min(kRows, t.rows - first);
      const long limit = round_up(z.seen(first + rows - 1, t.rows), 16);
      const Bf16* query = q + (t.start + first) * q_stride + h * d;
      product(rows, limit, reinterpret_cast<const Pair*>(query), q_stride / 2, 1, keys, padded,
              scores, padded, d / 2, false);
      float sums[kRows];
      for (long m = 0; m < rows; m++) {
        float top;
        softmax_row(scores + m * padded, z.seen(first + m, t.rows), limit, scale * kLog2E, p + m * padded,
                    &top, sums + m);
        lse[h * all_rows + t.start + first + m] = top + std::log2(sums[m]);
      }
      product(rows, d, reinterpret_cast<const Pair*>(p), padded / 2, 1, values, d, mixed, d,
              limit / 2, false);
      for (long m = 0; m < rows; m++) {
        Bf16* to = out + (t.start + first + m) * q_stride + h * d;
        __m512 by = _mm512_set1_ps(1.0f / sums[m]);
        for (long c = 0; c < d; c += 16)
          store_bf16(to + c, _mm512_mul_ps(_mm512_loadu_ps(mixed + m * d + c), by));
      }
    }
  return true;
}

// What the backward pass of a block of queries and a block of keys keeps between its products.
struct Block {
  float *scores, *slopes;  // (kRows, kColumns): s and dp, both before the softmax's derivative
  Pair *p, *ds;            // (kRows / 2, kColumns): rows interleaved, for p^T do and ds^T q
  Bf16* ds_rows;           // (kRows, kColumns), for ds k
};

// p and ds of two neighbouring rows from their scores and slopes.
void gradient_rows(const Block& b, long m, long rows, const float* lse, const float* delta,
                   long seen, bool causal, long columns, float scale) {
  __m512 factor = _mm512_set1_ps(scale * kLog2E), by = _mm512_set1_ps(scale);
  for (long n = 0; n < columns; n += 16) {
    __m512 p[2], ds[2];
    for (long r = 0; r < 2; r++) {
      __mmask16 mask = m + r < rows ? first_of(seen + (causal ? r : 0) - n) : 0;
      p[r] = ds[r] = _mm512_setzero_ps();
      if (!mask) continue;
      const long at = (m + r) * kColumns + n;
      __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(b.scores + at), factor,
                                 _mm512_set1_ps(lse[m + r]));
      p[r] = _mm512_maskz_mov_ps(mask, exp2_of(x));
      __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(b.slopes + at), _mm512_set1_ps(delta[m + r]));
      ds[r] = _mm512_mul_ps(_mm512_mul_ps(p[r], slope), by);
      ds[r] = _mm512_maskz_mov_ps(mask, ds[r]);
    }
    auto interleaved = [](__m256i low, __m256i high) {
      return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                             _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
    };
    const __m256i low = narrow(ds[0]), high = narrow(ds[1]);
    const long pair = m / 2 * kColumns + n;
    _mm512_storeu_si512(b.p + pair, interleaved(narrow(p[0]), narrow(p[1])));
    _mm512_storeu_si512(b.ds + pair, interleaved(low, high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.ds_rows + m * kColumns + n), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(b.ds_rows + (m + 1) * kColumns + n), high);
  }
}

void write_bf16(const float* from, long rows, long width, Bf16* to, long stride) {
  for (long m = 0; m < rows; m++)
    for (long c = 0; c < width; c += 16)
      store_bf16(to + m * stride + c, _mm512_loadu_ps(from + m * width + c));
}

bool backward_task(const Task& t, const Shape& z, const Bf16* q, const Bf16* k, const Bf16* v,
                   const Bf16* out, const Bf16* grad, const float* lse, Bf16* dq, Bf16* dk,
                   Bf16* dv, long all_rows, float scale, Arena& arena) {
  const long d = z.width, padded = round_up(t.rows, 64);
  const long kv_stride = z.kv_heads * d, q_stride = z.heads * d;
  if (!arena.reserve(4 * padded * d / 2 * 3 + 8 * padded * d + 16 * kRows * kColumns +
                     12 * kRows * d + 8192))
    return false;
  Pair* keys = arena.take<Pair>(padded / 2 * d);         // transposed, for s
  Pair* values = arena.take<Pair>(padded / 2 * d);       // transposed, for dp
  Pair* keys_by_row = arena.take<Pair>(padded / 2 * d);  // interleaved, for dq
  float* key_sum = arena.take<float>(padded * d);
  float* value_sum = arena.take<float>(padded * d);
  float* query_sum = arena.take<float>(kRows * d);
  Pair* queries = arena.take<Pair>(kRows / 2 * d);
  Pair* grads = arena.take<Pair>(kRows / 2 * d);
  Block b{arena.take<float>(kRows * kColumns), arena.take<float>(kRows * kColumns),
          arena.take<Pair>(kRows / 2 * kColumns), arena.take<Pair>(kRows / 2 * kColumns),
          arena.take<Bf16>(kRows * kColumns)};
  const long kv_at = t.start * kv_stride + t.kv * d;
  pack_transposed(k + kv_at, kv_stride, t.rows, padded, d, keys);
  pack_transposed(v + kv_at, kv_stride, t.rows, padded, d, values);
  pack_interleaved(k + kv_at, kv_stride, t.rows, padded, d, keys_by_row);
  std::memset(key_sum, 0, padded * d * sizeof(float));
  std::memset(value_sum, 0, padded * d * sizeof(float));
  for (long h = t.kv * z.group(); h < (t.kv + 1) * z.group(); h++)
    for (long first = 0; first < t.rows; first += kRows) {
      const long rows = std::min(kRows, t.rows - first), even = round_up(rows, 2);
      const long at = (t.start + first) * q_stride + h * d;
      const Pair* query = reinterpret_cast<const Pair*>(q + at);
      const Pair* slope = reinterpret_cast<const Pair*>(grad + at);
      pack_interleaved(q + at, q_stride, rows, even, d, queries);
      pack_interleaved(grad + at, q_stride, rows, even, d, grads);
      float delta[kRows];
      for (long m = 0; m < rows; m++) {
        __m512 sum = _mm512_setzero_ps();
        for (long c = 0; c < d; c += 16)
          sum = _mm512_fmadd_ps(load_bf16(grad + at + m * q_stride + c),
                                load_bf16(out + at + m * q_stride + c), sum);
        delta[m] = _mm512_reduce_add_ps(sum);
      }
      const long limit = z.seen(first + rows - 1, t.rows);
      for (long n = 0; n < limit; n += kColumns) {
        const long columns = round_up(std::min(kColumns, limit - n), 16);
        product(rows, columns, query, q_stride / 2, 1, keys + n, padded, b.scores, kColumns, d / 2,
                false);
        product(rows, columns, slope, q_stride / 2, 1, values + n, padded, b.slopes, kColumns,
                d / 2, false);
        for (long m = 0; m < rows; m += 2)
          gradient_rows(b, m, rows, lse + h * all_rows + t.start + first, delta,
                        z.seen(first + m, t.rows) - n, z.causal, columns, scale);
        product(rows, d, reinterpret_cast<const Pair*>(b.ds_rows), kColumns / 2, 1,
                keys_by_row + n / 2 * d, d, query_sum, d, columns / 2, n > 0);
        product(columns, d, b.p, 1, kColumns, grads, d, value_sum + n * d, d, even / 2, true);
        product(columns, d, b.ds, 1, kColumns, queries, d, key_sum + n * d, d, even / 2, true);
      }
      write_bf16(query_sum, rows, d, dq + at, q_stride);
    }
  write_bf16(key_sum, t.rows, d, dk + kv_at, kv_stride);
  write_bf16(value_sum, t.rows, d, dv + kv_at, kv_stride);
  return true;
}

}  // namespace

extern "C" {

// out (rows, heads, width) and lse (heads, rows), the base-2 logarithm of every softmax's sum.
// Returns 0, or 1 where memory was short and the results are not to be used.
int attention_forward(const Bf16* q, const Bf16* k, const Bf16* v, const int64_t* starts,
                       long documents, long rows, long heads, long kv_heads, long width,
                       float scale, int causal, int threads, Bf16* out, float* lse) {
  const Shape shape{heads, kv_heads, width, causal != 0};
  const std::vector<Task> tasks = tasks_of(starts, documents, kv_heads);
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    Arena arena;
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < tasks.size(); i++)
      failed |= !forward_task(tasks[i], shape, q, k, v, out, lse, rows, scale, arena);
  }
  return failed;
}

// dq, dk, dv from the gradient of out; every element is written. Returns as the forward pass does.
int attention_backward(const Bf16* q, const Bf16* k, const Bf16* v, const Bf16* out,
                        const Bf16* grad, const float* lse, const int64_t* starts, long documents,
                        long rows, long heads, long kv_heads, long width, float scale, int causal,
                        int threads, Bf16* dq, Bf16* dk, Bf16* dv) {
  const Shape shape{heads, kv_heads, width, causal != 0};
  const std::vector<Task> tasks = tasks_of(starts, documents, kv_heads);
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    Arena arena;
#pragma omp for schedule(dynamic, 1)
    for (size_t i = 0; i < tasks.size(); i++)
      failed |=
          !backward_task(tasks[i], shape, q, k, v, out, grad, lse, dq, dk, dv, rows, scale, arena);
  }
  return failed;
}
}
