"""C++ of int8 matrix products, and what all kernels share, which `kernels_build_michiai.py` compiles; a string, since the Hub brings
remote code as Python."""

PRODUCTS = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <omp.h>
#if defined __AVX2__ || defined __AVX512F__
#include <immintrin.h>
#endif
#if defined __AMX_BF16__ && defined __AMX_INT8__
#define TILED
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int ROWS = 4;      // of a matrix that are multiplied at once, or one after the other by the same inputs
constexpr int INPUTS = 4;    // that are multiplied at once
#ifdef __AVX512VNNI__
using Level = uint8_t;       // of an input: what it is multiplied as,
constexpr int OFFSET = 128;  // and by how much it is moved up, where one factor of a product has to be unsigned
#else
using Level = int8_t;
constexpr int OFFSET = 0;
#endif

struct Matrix {
    const int8_t* weight; const float* scale; const int32_t* sums;
    static Matrix at(const int64_t* addresses) {
        return {reinterpret_cast<const int8_t*>(addresses[0]), reinterpret_cast<const float*>(addresses[1]),
                reinterpret_cast<const int32_t*>(addresses[2])};
    }
};

// int8 inputs with their scales: row m at levels + m * stride, moved up by OFFSET
struct Levels { Level* levels; float* scale; int64_t stride; };

int64_t up_to(int64_t unit, int64_t n) { return (n + unit - 1) / unit * unit; }

float from_bf16(uint16_t value) { uint32_t bits = uint32_t(value) << 16; float x; std::memcpy(&x, &bits, 4); return x; }

uint16_t to_bf16(float x) {
    uint32_t bits; std::memcpy(&bits, &x, 4);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// eight floats, which the compiler makes of what the processor has
typedef float Floats __attribute__((vector_size(32)));
typedef uint32_t Bits __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));
constexpr int WIDTH = 8;

template <class T>
inline T read(const void* from) { T x; std::memcpy(&x, from, sizeof(T)); return x; }

inline void write(float* to, Floats x) { std::memcpy(to, &x, sizeof(x)); }

inline Floats floats_of(const uint16_t* from) { return (Floats)(__builtin_convertvector(read<Halves>(from), Bits) << 16); }

inline float sum_of(Floats x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }

// e^x by a polynomial for the fraction of a power of 2 (off by 9e-8 of its value): the compiler makes vectors of it
inline float exp_of(float x) {
    x = std::min(std::max(x, -87.0f), 87.0f) * 1.44269504f;
    float whole = std::floor(x), part = x - whole;
    float y = 1.8775767e-3f;
    y = y * part + 8.9893397e-3f; y = y * part + 5.5826318e-2f; y = y * part + 2.4015361e-1f;
    y = y * part + 6.9315308e-1f; y = y * part + 9.9999994e-1f;
    uint32_t bits = uint32_t(int32_t(whole) + 127) << 23; float power; std::memcpy(&power, &bits, 4);
    return y * power;
}

float sigmoid(float x) { return 1.0f / (1.0f + exp_of(-x)); }

// mean 0 and deviation 1 of n values
void standardise(const float* x, int64_t n, float eps, float* y) {
    float sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const float mean = sum / n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / std::sqrt(square / n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inverse;
}

void quantise(const float* x, int64_t n, int64_t m, Levels out) {
    float largest = 1e-12f;
    for (int64_t i = 0; i < n; i++) largest = std::max(largest, std::fabs(x[i]));
    float inverse = 127.0f / largest;
    Level* levels = out.levels + m * out.stride;
    for (int64_t i = 0; i < n; i++) levels[i] = Level(int32_t(std::nearbyint(x[i] * inverse)) + OFFSET);
    std::fill(levels + n, levels + out.stride, Level(0));
    out.scale[m] = largest / 127.0f;
}

// sums[r][m] = levels of input m times row r
template <int R, int M>
void products(const Level* x, int64_t stride, const int8_t* w, int64_t n, int32_t sums[R][M]) {
#ifdef __AVX512VNNI__
    __m512i total[R][M];
    for (int r = 0; r < R; r++) for (int m = 0; m < M; m++) total[r][m] = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i inputs[M];
        for (int m = 0; m < M; m++) inputs[m] = _mm512_loadu_si512(x + m * stride + i);
        for (int r = 0; r < R; r++) {
            __m512i row = _mm512_loadu_si512(w + r * n + i);
            _mm_prefetch(reinterpret_cast<const char*>(w + (r + R) * n + i), _MM_HINT_T0);  // of the rows that come next
            for (int m = 0; m < M; m++) total[r][m] = _mm512_dpbusd_epi32(total[r][m], inputs[m], row);
        }
    }
    if (i < n) {
        __mmask64 rest = (1ULL << (n - i)) - 1;
        for (int r = 0; r < R; r++) {
            __m512i row = _mm512_maskz_loadu_epi8(rest, w + r * n + i);
            for (int m = 0; m < M; m++) total[r][m] = _mm512_dpbusd_epi32(total[r][m], _mm512_loadu_si512(x + m * stride + i), row);
        }
    }
    for (int m = 0; m < M; m++) {
        if constexpr (R == 4) {  // four sums at once
            __m512i one = total[0][m], two = total[1][m], three = total[2][m], last = total[3][m];
            __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(one, two), _mm512_unpackhi_epi32(one, two));
            __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(three, last), _mm512_unpackhi_epi32(three, last));
            a = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            __m256i c = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
            __m128i d = _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
            int32_t four[4];
            _mm_storeu_si128(reinterpret_cast<__m128i*>(four), d);
            for (int r = 0; r < R; r++) sums[r][m] = four[r];
        } else
            for (int r = 0; r < R; r++) sums[r][m] = _mm512_reduce_add_epi32(total[r][m]);
    }
#else
    static_assert(R == 1);
    int64_t i = 0;
    std::fill(sums[0], sums[0] + M, 0);
#ifdef __AVX2__
    __m256i total[M] = {};
    const __m256i ones = _mm256_set1_epi16(1);
    for (; i + 32 <= n; i += 32) {
        const __m256i row = read<__m256i>(w + i), size = _mm256_abs_epi8(row);
        _mm_prefetch(reinterpret_cast<const char*>(w + i + 2048), _MM_HINT_T0);
        for (int m = 0; m < M; m++) {  // |w| times x with the sign of w: a pair's sum is at most 2 * 127 * 127, which 16 bits hold
            const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(read<__m256i>(x + m * stride + i), row));
            total[m] = _mm256_add_epi32(total[m], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int m = 0; m < M; m++) {
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(total[m]), _mm256_extracti128_si256(total[m], 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01001110));
        sums[0][m] = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0b10110001)));
    }
#endif
    for (int m = 0; m < M; m++)
        for (int64_t j = i; j < n; j++) sums[0][m] += int32_t(x[m * stride + j]) * int32_t(w[j]);
#endif
}

template <int R, int M, class Emit>
void tile(Levels x, int64_t m, Matrix a, int64_t r, int64_t n, Emit emit) {
    int32_t sums[R][M];
    products<R, M>(x.levels + m * x.stride, x.stride, a.weight + r * n, n, sums);
    for (int i = 0; i < R; i++) for (int j = 0; j < M; j++)
        emit(m + j, r + i, float(sums[i][j] - OFFSET * a.sums[r + i]) * a.scale[r + i] * x.scale[m + j]);
}

// some rows, at most ROWS, times M inputs
template <int M, class Emit>
void strip(Levels x, int64_t m, Matrix a, int64_t r, int64_t end, int64_t n, Emit emit) {
#ifdef __AVX512VNNI__
    if (end - r == ROWS) return tile<ROWS, M>(x, m, a, r, n, emit);
#endif
    for (; r < end; r++) tile<1, M>(x, m, a, r, n, emit);
}

// emit(m, r, value) for rows first .. last of a matrix with n columns
template <class Emit>
void multiply(Levels x, int64_t M, Matrix a, int64_t first, int64_t last, int64_t n, Emit emit) {
    constexpr int64_t NEAR = 64;  // inputs that stay in the nearer caches while all rows go by
    for (int64_t begin = 0; begin < M; begin += NEAR)
        for (int64_t r = first; r < last; r += ROWS) {
            const int64_t end = std::min(r + ROWS, last), stop = std::min(begin + NEAR, M);
            int64_t m = begin;
            for (; m + INPUTS <= stop; m += INPUTS) strip<INPUTS>(x, m, a, r, end, n, emit);
            switch (stop - m) {
                case 3: strip<3>(x, m, a, r, end, n, emit); break;
                case 2: strip<2>(x, m, a, r, end, n, emit); break;
                case 1: strip<1>(x, m, a, r, end, n, emit); break;
            }
        }
}

// this thread's share of n things, in whole groups
void share(int64_t n, int thread, int threads, int64_t& first, int64_t& last, int64_t group = ROWS) {
    int64_t groups = (n + group - 1) / group;
    first = std::min(n, groups * thread / threads * group);
    last = std::min(n, groups * (thread + 1) / threads * group);
}

#ifdef TILED
// the operating system grants a process the tiles when it asks; without them the other kernels run
const bool TILES = syscall(SYS_arch_prctl, 0x1023, 18) == 0;

void begin_tiles() {
    struct { uint8_t palette = 1, start = 0, unused[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; } config;
    for (int i = 0; i < 8; i++) { config.bytes[i] = 64; config.rows[i] = 16; }
    _tile_loadconfig(&config);
}

// input m as tiles take it: [M / 16][n / 64][16][16][4]
void arrange(Levels x, int64_t m, int64_t n, uint8_t* y) {
    for (int64_t i = 0; i < n; i += 4)
        std::memcpy(y + (m / 16 * (n / 64) + i / 64) * 1024 + i % 64 * 16 + m % 16 * 4, x.levels + m * x.stride + i, 4);
}

// `multiply` of many inputs, arranged; first, last and n are whole tiles
template <class Emit>
void multiply_tiles(const uint8_t* inputs, Levels x, int64_t M, Matrix a, int64_t first, int64_t last, int64_t n, Emit emit) {
    alignas(64) int32_t sums[4][16][16];
    for (int64_t r = first; r < last; r += 32)
        for (int64_t m = 0; m < M; m += 32) {
            const bool below = r + 16 < last, beside = m + 16 < M;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            for (int64_t i = 0; i < n; i += 64) {
                const uint8_t* from = inputs + m * n + i * 16;
                _tile_loadd(4, a.weight + r * n + i, n);
                _tile_loadd(6, from, 64);
                _tile_dpbsud(0, 4, 6);
                if (beside) { _tile_loadd(7, from + 16 * n, 64); _tile_dpbsud(1, 4, 7); }
                if (below) { _tile_loadd(5, a.weight + (r + 16) * n + i, n); _tile_dpbsud(2, 5, 6); }
                if (below && beside) _tile_dpbsud(3, 5, 7);
            }
            _tile_stored(0, sums[0], 64); _tile_stored(1, sums[1], 64); _tile_stored(2, sums[2], 64); _tile_stored(3, sums[3], 64);
            for (int64_t j = m; j < std::min(m + 32, M); j++)
                for (int64_t i = r; i < std::min(r + 32, last); i++) {
                    const int32_t sum = sums[(i - r) / 16 * 2 + (j - m) / 16][(i - r) % 16][(j - m) % 16];
                    emit(j, i, float(sum - OFFSET * a.sums[i]) * a.scale[i] * x.scale[j]);
                }
        }
}
#endif

}  // namespace

extern "C" void multiply_int8(const float* x, const int8_t* weight, const float* scale, const int32_t* sums, const float* bias,
                              float* y, int64_t M, int64_t N, int64_t n, int64_t threads) {
    Matrix a{weight, scale, sums};
    std::vector<Level> levels(M * up_to(64, n));
    std::vector<float> scales(M);
    Levels q{levels.data(), scales.data(), up_to(64, n)};
    auto emit = [&](int64_t m, int64_t r, float value) { y[m * N + r] = bias ? value + bias[r] : value; };
#ifdef TILED
    const bool tiled = TILES && M >= 16 && N % 16 == 0 && n % 64 == 0;
    std::vector<uint8_t> arranged(tiled ? (M + 15) / 16 * 16 * n : 0);
#endif
    #pragma omp parallel num_threads(threads) if (threads > 1 && N * n > 65536)
    {
        int64_t first, last;
        #pragma omp for
        for (int64_t m = 0; m < M; m++) {
            quantise(x + m * n, n, m, q);
#ifdef TILED
            if (tiled) arrange(q, m, n, arranged.data());
#endif
        }
#ifdef TILED
        if (tiled) {
            begin_tiles();
            share(N, omp_get_thread_num(), omp_get_num_threads(), first, last, 16);
            multiply_tiles(arranged.data(), q, M, a, first, last, n, emit);
            _tile_release();
        } else
#endif
        {
            share(N, omp_get_thread_num(), omp_get_num_threads(), first, last);
            multiply(q, M, a, first, last, n, emit);
        }
    }
}
"""
