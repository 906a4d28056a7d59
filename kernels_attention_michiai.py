"""C++ of attention to a conversation's memory, which `kernels_build_michiai.py` compiles after the int8 products."""

ATTENTION = r"""
namespace {

constexpr int BLOCK = 64;   // slots that attention looks at together

struct Shape { int64_t S, B, T, D, H, G, size, F, P, K; float eps, scaling; };

// [S, 2, B, H, slots, size] with the strides of the first three
struct Memory { uint16_t* data; int64_t layer, pair, batch; };

// RMSNorm
void normalise(const float* x, const float* weight, int64_t D, float eps, float* y) {
    float square = 0;
    for (int64_t i = 0; i < D; i++) square += x[i] * x[i];
    float inverse = 1.0f / std::sqrt(square / D + eps);
    for (int64_t i = 0; i < D; i++) y[i] = x[i] * inverse * weight[i];
}

// rotary position embedding of one head; the sines of the first half are negative
void rotate(const float* x, const float* cos, const float* sin, int64_t size, float factor, float* y) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        y[i] = (x[i] * cos[i] + x[i + half] * sin[i]) * factor;
        y[i + half] = (x[i + half] * cos[i + half] + x[i] * sin[i + half]) * factor;
    }
}

#ifdef __AVX512F__
__m512 widened(const uint16_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}
#endif

template <int N>
void score_some(const float* query, const uint16_t* keys, const int32_t* rows, int64_t count, int64_t size, float* y) {
    for (int64_t j = 0; j < count; j += 4) {  // four keys at once
        const uint16_t* key[4];
        for (int r = 0; r < 4; r++) key[r] = keys + rows[std::min(j + r, count - 1)] * size;
        Floats total[N][4] = {};
        int64_t i = 0;
        for (; i + WIDTH <= size; i += WIDTH)
            for (int r = 0; r < 4; r++) {
                const Floats part = floats_of(key[r] + i);
                for (int n = 0; n < N; n++) total[n][r] += part * read<Floats>(query + n * size + i);
            }
        for (int n = 0; n < N; n++)
            for (int r = 0; r < 4; r++) {
                float sum = sum_of(total[n][r]);
                for (int64_t k = i; k < size; k++) sum += query[n * size + k] * from_bf16(key[r][k]);
                y[n * BLOCK + j + r] = sum;
            }
    }
}

// y [queries, BLOCK] = queries [.., size] times the keys that stand at `rows`
void score(const float* query, int64_t queries, const uint16_t* keys, const int32_t* rows, int64_t count, int64_t size, float* y) {
#ifdef __AVX512F__
    if (size == 64) {
        for (int64_t j = 0; j < count; j += 4) {
            __m512 key[4][4];
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) key[r][c] = widened(keys + rows[std::min(j + r, count - 1)] * 64 + 16 * c);
            for (int64_t q = 0; q < queries; q++) {
                __m512 total[4];
                for (int r = 0; r < 4; r++) total[r] = _mm512_mul_ps(key[r][0], _mm512_loadu_ps(query + q * 64));
                for (int c = 1; c < 4; c++)
                    for (int r = 0; r < 4; r++) total[r] = _mm512_fmadd_ps(key[r][c], _mm512_loadu_ps(query + q * 64 + 16 * c), total[r]);
                __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(total[0], total[1]), _mm512_unpackhi_ps(total[0], total[1]));
                __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(total[2], total[3]), _mm512_unpackhi_ps(total[2], total[3]));
                __m512d left = _mm512_castps_pd(a), right = _mm512_castps_pd(b);
                a = _mm512_castpd_ps(_mm512_unpacklo_pd(left, right)) + _mm512_castpd_ps(_mm512_unpackhi_pd(left, right));
                __m128 low = _mm512_extractf32x4_ps(a, 0) + _mm512_extractf32x4_ps(a, 1);
                __m128 high = _mm512_extractf32x4_ps(a, 2) + _mm512_extractf32x4_ps(a, 3);
                _mm_storeu_ps(y + q * BLOCK + j, low + high);
            }
        }
        return;
    }
#endif
    int64_t q = 0;
    for (; q + 3 <= queries; q += 3) score_some<3>(query + q * size, keys, rows, count, size, y + q * BLOCK);
    for (; q < queries; q++) score_some<1>(query + q * size, keys, rows, count, size, y + q * BLOCK);
}

// y [N, stride] += weights [N, BLOCK] times the values that stand at `rows`
template <int N>
void weigh(const float* weights, const uint16_t* values, const int32_t* rows, int64_t count, int64_t size, float* y, int64_t stride) {
#ifdef __AVX512F__
    if (size == 64) {
        __m512 total[N][4];
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) total[n][c] = _mm512_loadu_ps(y + n * stride + 16 * c);
        for (int64_t j = 0; j < count; j++) {
            __m512 value[4];
            for (int c = 0; c < 4; c++) value[c] = widened(values + rows[j] * 64 + 16 * c);
            for (int n = 0; n < N; n++)
                for (int c = 0; c < 4; c++) total[n][c] = _mm512_fmadd_ps(_mm512_set1_ps(weights[n * BLOCK + j]), value[c], total[n][c]);
        }
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) _mm512_storeu_ps(y + n * stride + 16 * c, total[n][c]);
        return;
    }
#endif
    int64_t i = 0;
    for (; i + 4 * WIDTH <= size; i += 4 * WIDTH) {
        Floats total[N][4];
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) total[n][c] = read<Floats>(y + n * stride + i + WIDTH * c);
        for (int64_t j = 0; j < count; j++)
            for (int c = 0; c < 4; c++) {
                const Floats value = floats_of(values + rows[j] * size + i + WIDTH * c);
                for (int n = 0; n < N; n++) total[n][c] += weights[n * BLOCK + j] * value;
            }
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) write(y + n * stride + i + WIDTH * c, total[n][c]);
    }
    for (int n = 0; n < N; n++)
        for (int64_t j = 0; j < count; j++)
            for (int64_t k = i; k < size; k++) y[n * stride + k] += weights[n * BLOCK + j] * from_bf16(values[rows[j] * size + k]);
}

// Attention of some queries to a block of slots, put together with that to the blocks before: y [queries, 2 + size] holds of each the
// maximum of its scores, the sum of its weights and its weighted values.
void look_at(const float* query, int64_t queries, int64_t per_mask, const uint16_t* keys, const uint16_t* values, const int32_t* rows,
             const float* mask, int64_t mask_stride, int64_t count, int64_t size, float* scores, float* y) {
    const int64_t part = size + 2;
    score(query, queries, keys, rows, count, size, scores);
    for (int64_t q = 0; q < queries; q++) {
        float *own = scores + q * BLOCK, *to = y + q * part, most = -INFINITY;
        const float* unseen = mask + q / per_mask * mask_stride;
        for (int64_t j = 0; j < count; j++) { own[j] += unseen[j]; most = std::max(most, own[j]); }
        if (most == -INFINITY) { std::fill(own, own + count, 0.0f); continue; }
        const float top = std::max(to[0], most), shrink = to[0] == -INFINITY ? 0.0f : exp_of(to[0] - top);
        float sum = 0;
        for (int64_t j = 0; j < count; j++) {
            own[j] = own[j] == -INFINITY ? 0.0f : exp_of(own[j] - top);
            sum += own[j];
        }
        to[0] = top;
        to[1] = to[1] * shrink + sum;
        for (int64_t i = 0; i < size; i++) to[2 + i] *= shrink;
    }
    int64_t q = 0;
    for (; q + 3 <= queries; q += 3) weigh<3>(scores + q * BLOCK, values, rows, count, size, y + q * part + 2, part);
    for (; q < queries; q++) weigh<1>(scores + q * BLOCK, values, rows, count, size, y + q * part + 2, part);
}

// Which slots any position of each row of the batch sees, as rows of the prompt and then of the memory, and what each position adds to
// their scores.
struct Sight {
    std::vector<std::vector<int32_t>> rows;
    std::vector<std::vector<float>> masks;
    std::vector<int64_t> of_prompt;

    Sight(const Shape& shape, const uint8_t* seen) : rows(shape.B), masks(shape.B), of_prompt(shape.B) {
        const int64_t T = shape.T, P = shape.P, slots = P + shape.K;
        for (int64_t b = 0; b < shape.B; b++, seen += T * slots) {
            std::vector<int64_t> which;
            for (int64_t s = 0; s < slots; s++)
                for (int64_t t = 0; t < T; t++)
                    if (seen[t * slots + s]) { which.push_back(s); break; }
            for (int64_t s : which) { rows[b].push_back(int32_t(s < P ? s : s - P)); of_prompt[b] += s < P; }
            for (int64_t t = 0; t < T; t++)
                for (int64_t s : which) masks[b].push_back(seen[t * slots + s] ? 0.0f : -INFINITY);
        }
    }
};

// What the threads share of an attention
struct Attention {
    const Shape& shape; const Sight& sight; const Memory *prompt, *memory; const bool write_prompt;
    const int64_t* slot; const float *cos, *sin;
    const int64_t heads = shape.H * shape.G, part = shape.size + 2, total = (heads + 2 * shape.H) * shape.size;
    std::vector<float> joined, parts;  // queries, keys and values [M, total]; of each thread, position and query what `look_at` gives

    Attention(const Shape& shape, const Sight& sight, const Memory* prompt, const Memory* memory, bool write_prompt, const int64_t* slot,
              const float* cos, const float* sin, int64_t threads)
        : shape(shape), sight(sight), prompt(prompt), memory(memory), write_prompt(write_prompt), slot(slot), cos(cos), sin(sin),
          joined(shape.B * shape.T * total), parts(threads * shape.B * shape.T * heads * part) {}
};

// One of the threads: it looks at its share of the slots, and then puts all shares together.
struct Looker {
    Attention& all; const Shape& shape; const int64_t thread, threads, queries;
    std::vector<float> query, scores, found, scratch;

    Looker(Attention& all, int64_t thread, int64_t threads)
        : all(all), shape(all.shape), thread(thread), threads(threads), queries(shape.T * shape.G), query(2 * queries * shape.size),
          scores(queries * BLOCK), found(queries * all.part), scratch(shape.size) {}

    // Write keys and values of row b of the batch, those that lie in rows[from .. to - 1]: who looks at a slot writes it before.
    void remember(int64_t b, uint16_t* base, int64_t from, int64_t to) {
        const auto& [S, B, T, D, H, G, size, F, P, K, eps, scaling] = shape;
        const Memory* where = all.write_prompt ? all.prompt : all.memory;
        const auto& rows = all.sight.rows[b];
        for (int64_t t = 0; t < T; t++) {
            const int64_t m = b * T + t, s = all.slot[m];
            if (from >= to || s < rows[from] || s > rows[to - 1]) continue;
            const float* keys = all.joined.data() + m * all.total + all.heads * size;
            for (int64_t h = 0; h < H; h++) {
                uint16_t* place = base + (h * (all.write_prompt ? P : K) + s) * size;
                rotate(keys + h * size, all.cos + (m * 2 + 1) * size, all.sin + (m * 2 + 1) * size, size, 1.0f, scratch.data());
                for (int64_t i = 0; i < size; i++) {
                    place[i] = to_bf16(scratch[i]);
                    place[where->pair + i] = to_bf16(keys[(H + h) * size + i]);
                }
            }
        }
    }

    // This thread's part of the attention of row b of the batch
    void look(int64_t layer, int64_t b) {
        const auto& [S, B, T, D, H, G, size, F, P, K, eps, scaling] = shape;
        const auto& rows = all.sight.rows[b];
        const int64_t count = rows.size(), begin = count * thread / threads, end = count * (thread + 1) / threads;
        const int64_t border = all.sight.of_prompt[b];
        const int64_t halves[2][2] = {{begin, std::min(end, border)}, {std::max(begin, border), end}};  // prompt, memory
        uint16_t* base[2];
        for (int way = 0; way < 2; way++) {
            const Memory* where = way ? all.memory : all.prompt;
            base[way] = where->data + layer * where->layer + b * where->batch;
        }
        const auto [from, to] = halves[!all.write_prompt];
        remember(b, base[!all.write_prompt], from, to);
        for (int64_t h = 0; h < H; h++) {
            for (int64_t t = 0; t < T; t++)
                for (int64_t g = 0; g < G; g++)
                    for (int64_t way = 0; way < 2; way++) {  // as the prompt is seen, and as the memory is
                        const int64_t m = b * T + t, turn = (m * 2 + way) * size;
                        const float* x = all.joined.data() + m * all.total + (h * G + g) * size;
                        float* y = query.data() + (way * queries + t * G + g) * size;
                        rotate(x, all.cos + turn, all.sin + turn, size, scaling, y);
                        for (int64_t i = 0; i < size; i++) y[i] = from_bf16(to_bf16(y[i]));
                    }
            for (int64_t i = 0; i < queries * all.part; i++) found[i] = i % all.part ? 0.0f : -INFINITY;
            for (int way = 0; way < 2; way++) {
                const uint16_t* keys = base[way] + h * (way ? K : P) * size;
                const uint16_t* values = keys + (way ? all.memory : all.prompt)->pair;
                for (int64_t start = halves[way][0]; start < halves[way][1]; start += BLOCK)
                    look_at(query.data() + way * queries * size, queries, G, keys, values, rows.data() + start,
                            all.sight.masks[b].data() + start, count, std::min<int64_t>(BLOCK, halves[way][1] - start), size, scores.data(),
                            found.data());
            }
            for (int64_t t = 0; t < T; t++)
                std::memcpy(all.parts.data() + ((thread * B * T + b * T + t) * all.heads + h * G) * all.part,
                            found.data() + t * G * all.part, G * all.part * sizeof(float));
        }
    }

    // The attention of position m: y [heads, size]
    void put_together(int64_t m, float* y) const {
        const int64_t size = shape.size, M = shape.B * shape.T;
        for (int64_t h = 0; h < all.heads; h++, y += size) {
            const auto of = [&](int64_t i) { return all.parts.data() + ((i * M + m) * all.heads + h) * all.part; };
            float top = -INFINITY, sum = 0;
            for (int64_t i = 0; i < threads; i++) top = std::max(top, of(i)[0]);
            std::fill(y, y + size, 0.0f);
            for (int64_t i = 0; i < threads; i++) {
                const float* from = of(i);
                if (from[0] == -INFINITY) continue;
                const float weight = exp_of(from[0] - top);
                sum += weight * from[1];
                for (int64_t j = 0; j < size; j++) y[j] += weight * from[2 + j];
            }
            for (int64_t j = 0; j < size; j++) y[j] /= sum;
        }
    }
};

}  // namespace
"""
