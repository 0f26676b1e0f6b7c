// The blocks of an encoder whose norms stand after the sums (BERT), over packed documents in one call:
//     x <- norm(x + out(attention(x))),   x <- norm(x + down(f(up x)))
// Products are those of ``panels.h``; the stream stays float32. Documents are taken some at a time, so that
// what lies between two products stays near. Of the last block only the first row of every document is
// made where the head reads no other.

#include "panels.h"

#include <cstdlib>
#include <vector>

#include <omp.h>

namespace {

constexpr long DEEP = 3072;   // bytes of a row that a product goes through at once
constexpr long QUERIES = 96;  // rows of a document that attend together
constexpr long AT_ONCE = 256;  // rows of documents that go together, the last one's beyond them
constexpr size_t KEPT = 64 << 20;  // bytes that a thread keeps for its next call

// Attention -----------------------------------------------------------------------------------

// Keys (rows, d) as a matrix of ``padded`` outputs; zero beyond the rows. Units are 4 bytes.
void pack_keys(const uint8_t* from, long stride, long rows, long padded, long units, int32_t* to) {
  const __m512i index = _mm512_mullo_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
      _mm512_set1_epi32(static_cast<int>(stride)));
  for (long n = 0; n < padded; n += 16) {
    const __mmask16 some = first_of(rows - n);
    for (long j = 0; j < units; ++j, to += 16)
      _mm512_storeu_si512(to, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), some, index,
                                                          from + n * stride + 4 * j, 1));
  }
}

// Values (rows, d) as a matrix of d outputs that is ``padded`` deep.
template <int KIND>
void pack_values(const uint8_t* from, long stride, long rows, long padded, long d, uint8_t* to) {
  for (long c = 0; c < d; c += 16) {
    for (long n = 0; n < padded; n += KIND == BF16 ? 2 : 1, to += 64) {
      const uint8_t* at = from + n * stride + c * number_bytes(KIND);
      __m512i x = _mm512_setzero_si512();
      if (KIND == FLOAT) {
        if (n < rows) x = _mm512_loadu_si512(at);
      } else {
        if (n < rows) x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at));
        if (n + 1 < rows)
          x = _mm512_or_si512(x, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                                       (const __m256i*)(at + stride))), 16));
      }
      _mm512_storeu_si512(to, x);
    }
  }
}

// Softmax numerators of a row of scores, rounded as the values are; their sum before rounding.
template <int KIND>
float softmax_row(const float* s, long seen, long padded, float factor, const Room& to, long row) {
  __m512 most = _mm512_set1_ps(-INFINITY);
  for (long n = 0; n < seen; n += 16)
    most = _mm512_mask_max_ps(most, first_of(seen - n), most, _mm512_loadu_ps(s + n));
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most) * factor);
  __m512 total = _mm512_setzero_ps(), by = _mm512_set1_ps(factor);
  for (long n = 0; n < padded; n += GROUP) {
    __m512 x[2];
    for (int i = 0; i < 2; ++i) {
      x[i] = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + n + 16 * i), by, top));
      x[i] = _mm512_maskz_mov_ps(first_of(seen - n - 16 * i), x[i]);
      total = _mm512_add_ps(total, x[i]);
    }
    to.put<KIND>(row, n, x[0], x[1]);
  }
  return _mm512_reduce_add_ps(total);
}

long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

// Bytes that attention of a document works in.
long attention_bytes(long rows, long d) {
  const long padded = up(rows, GROUP);
  return 8 * padded * d + QUERIES * (8 * padded + PADDING) + 1024;
}

struct Head {
  Room q, k, v;     // numbers from the head's first column on
  long row, rows;   // of the document, among keys and values
  long first, asks; // its queries
  long d, column;
  float scale;
};

// KIND: that of queries, keys and values; TO: that of what is mixed.
template <int KIND, int TO>
void attend(const Head& h, uint8_t* scratch, const Room& mixed) {
  const long padded = up(h.rows, GROUP), size = number_bytes(KIND);
  uint8_t *keys = scratch, *values = keys + padded * h.d * size;
  float* scores = reinterpret_cast<float*>(values + padded * h.d * size);
  Room p{KIND, scores + QUERIES * padded, QUERIES, padded};
  const uint8_t* k = h.k.numbers + h.row * h.k.stride + h.column * size;
  const uint8_t* v = h.v.numbers + h.row * h.v.stride + h.column * size;
  pack_keys(k, h.k.stride, h.rows, padded, h.d * size / 4, reinterpret_cast<int32_t*>(keys));
  pack_values<KIND>(v, h.v.stride, h.rows, padded, h.d, values);
  const Matrix left{keys, h.d / GROUP * group_bytes(KIND), h.d / GROUP};
  const Matrix right{values, padded / GROUP * group_bytes(KIND), padded / GROUP};
  Room q = h.q;
  q.numbers += h.column * size;
  float sums[QUERIES];
  for (long m = 0; m < h.asks; m += QUERIES) {
    const long rows = std::min(QUERIES, h.asks - m), row = h.first + m;
    Room some = q;
    some.numbers += row * q.stride;
    for (long n = 0; n < padded / GROUP; ++n)
      panel_product<KIND>(some, 0, rows, 0, left, n, false, Scores{scores, padded});
    for (long i = 0; i < rows; ++i)
      sums[i] = softmax_row<KIND>(scores + i * padded, h.rows, padded, h.scale * 1.4426950408889634f,
                                  p, i);
    for (long n = 0; n < h.d / GROUP; ++n)
      panel_product<KIND>(p, 0, rows, 0, right, n, false, Mixed<TO>{mixed, sums, row, h.column});
  }
}

// Blocks --------------------------------------------------------------------------------------

struct Layer {
  const void *query, *key, *value, *out, *up, *down;
  const float *query_bias, *key_bias, *value_bias, *out_bias, *up_bias, *down_bias;
  const float *attention_gain, *attention_bias, *feed_gain, *feed_bias;
};

struct Shape {
  int32_t kind, activation, only_first, threads;
  long depth, width, heads, hidden;
  float eps, scale;
};

// x = norm(x) gain + bias, there and rounded for the next product.
template <int KIND>
void norm_row(float* x, long width, float eps, const float* gain, const float* bias, const Room& to,
              long row) {
  __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (long i = 0; i < width; i += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  for (long i = 0; i < width; i += 16) {
    const __m512 v = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const __m512 root = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps));
  for (long i = 0; i < width; i += GROUP) {
    __m512 v[2];
    for (int j = 0; j < 2; ++j) {
      float* at = x + i + 16 * j;
      v[j] = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(at), mean), root);
      v[j] = _mm512_fmadd_ps(v[j], _mm512_loadu_ps(gain + i + 16 * j),
                             _mm512_loadu_ps(bias + i + 16 * j));
      _mm512_storeu_ps(at, v[j]);
    }
    to.put<KIND>(row, i, v[0], v[1]);
  }
}

// Buffers of some documents.
struct Buffers {
  Room x, q, k, v, mixed, hidden;
  uint8_t* scratch;  // ``each`` bytes a thread
  long each;
};

// Documents of ``rows`` rows in all through all blocks; of the last block ``only_first`` rows are
// made, which then stand first in x, one a document. One team of threads calls it together.
template <int KIND, int HEADS>
void blocks(const Shape& s, const Layer* layers, float* x, const int64_t* starts, long documents,
            const Buffers& b) {
  const long d = s.width / s.heads, all = s.width / GROUP, from = starts[0];
  const long deep = std::max(1L, DEEP / (GROUP * number_bytes(KIND)));
  long rows = starts[documents] - from;
#pragma omp for schedule(static)
  for (long r = 0; r < rows; ++r)
    for (long i = 0; i < s.width; i += GROUP)
      b.x.put<KIND>(r, i, _mm512_loadu_ps(x + r * s.width + i),
                    _mm512_loadu_ps(x + r * s.width + i + 16));
  for (long n = 0; n < s.depth; ++n) {
    const Layer& l = layers[n];
    const bool few = s.only_first && n + 1 == s.depth;
    product<KIND>(b.x, rows, l.key, s.width, 0, all, Put<HEADS>{b.k, l.key_bias});
    product<KIND>(b.x, rows, l.value, s.width, 0, all, Put<HEADS>{b.v, l.value_bias});
    if (few) {
#pragma omp barrier
#pragma omp single
      for (long i = 0; i < documents; ++i) {  // a row moves forward, if at all
        const long row = starts[i] - from;
        std::memmove(x + i * s.width, x + row * s.width, s.width * sizeof(float));
        b.x.move(row, i);
      }
      rows = documents;
    }
    product<KIND>(b.x, rows, l.query, s.width, 0, all, Put<HEADS>{b.q, l.query_bias});
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
    for (long i = 0; i < documents * s.heads; ++i) {
      const long document = i / s.heads, h = i % s.heads, row = starts[document] - from;
      const long length = starts[document + 1] - starts[document];
      const Head head{b.q, b.k, b.v, row, length, few ? document : row, few ? 1 : length,
                      d, h * d, s.scale};
      attend<HEADS, KIND>(head, b.scratch + omp_get_thread_num() * b.each, b.mixed);
    }
    product<KIND>(b.mixed, rows, l.out, s.width, 0, all, Add{x, l.out_bias, s.width});
#pragma omp barrier
#pragma omp for schedule(static)
    for (long r = 0; r < rows; ++r)
      norm_row<KIND>(x + r * s.width, s.width, s.eps, l.attention_gain, l.attention_bias, b.x, r);
    product<KIND>(b.x, rows, l.up, s.hidden, 0, all, Activate<KIND>{b.hidden, l.up_bias, s.activation});
#pragma omp barrier
    for (long g = 0; g < s.hidden / GROUP; g += deep)
      product<KIND>(b.hidden, rows, l.down, s.width, g, std::min(deep, s.hidden / GROUP - g),
                    Add{x, g ? nullptr : l.down_bias, s.width});
#pragma omp barrier
#pragma omp for schedule(static)
    for (long r = 0; r < rows; ++r)
      norm_row<KIND>(x + r * s.width, s.width, s.eps, l.feed_gain, l.feed_bias, b.x, r);
  }
}

// What calls of a thread work in: pages once given are not asked for again.
struct Held {
  uint8_t* at = nullptr;
  size_t bytes = 0;
  ~Held() { std::free(at); }
};
thread_local Held held;

uint8_t* room_of(size_t bytes) {
  if (bytes > held.bytes || bytes == 0) {
    std::free(held.at);
    held.at = bytes ? static_cast<uint8_t*>(std::aligned_alloc(4096, bytes)) : nullptr;
    held.bytes = held.at ? bytes : 0;
  }
  return held.at;
}

}  // namespace

extern "C" {

// x (rows, width) of packed documents, starts[i] .. starts[i + 1] - 1 each, through ``depth`` blocks in
// its place. ``firsts`` (documents, width), of ``only_first``: the first row of each document, and
// what is left in x means nothing. Widths are multiples of 32.
int encode(const Shape* shape, const Layer* layers, float* x, const int64_t* starts, long documents,
           float* firsts) {
  const Shape& s = *shape;
  long most = 0, longest = 0;
  std::vector<long> bounds{0};  // documents that go together
  for (long i = 0; i < documents; ++i) {
    const long taken = starts[i + 1] - starts[bounds.back()];
    longest = std::max<long>(longest, starts[i + 1] - starts[i]);
    most = std::max(most, taken);
    if (taken >= AT_ONCE || i + 1 == documents) bounds.push_back(i + 1);
  }
  const int heads = s.kind == FLOAT ? FLOAT : BF16;
  const long each = up(attention_bytes(longest, s.width / s.heads), 4096);
  const long one = up(Room::bytes(s.kind, most, s.width), 4096);
  const long of_heads = up(Room::bytes(heads, most, s.width), 4096);
  const long wide = up(Room::bytes(s.kind, most, s.hidden), 4096);
  uint8_t* memory = room_of(2 * one + 3 * of_heads + wide + s.threads * each);
  if (!memory) return 1;
  uint8_t* at = memory;
  auto taken = [&](int kind, long width, long bytes) {
    const Room room(kind, at, most, width);
    at += bytes;
    return room;
  };
  Buffers b{taken(s.kind, s.width, one),    taken(heads, s.width, of_heads),
            taken(heads, s.width, of_heads), taken(heads, s.width, of_heads),
            taken(s.kind, s.width, one),    taken(s.kind, s.hidden, wide), nullptr, each};
  b.scratch = at;
  const auto run = s.kind == INT8 ? blocks<INT8, BF16> : s.kind == BF16 ? blocks<BF16, BF16>
                                                                        : blocks<FLOAT, FLOAT>;
#pragma omp parallel num_threads(s.threads)
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    float* here = x + starts[bounds[i]] * s.width;
    const long count = bounds[i + 1] - bounds[i];
    run(s, layers, here, starts + bounds[i], count, b);
    if (s.only_first) {
#pragma omp single
      std::memcpy(firsts + bounds[i] * s.width, here, count * s.width * sizeof(float));
    }
  }
  if (held.bytes > KEPT) room_of(0);
  return 0;
}

}
