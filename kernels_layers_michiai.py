"""C++ of transformer layers and of steered MLPs, which `kernels_michiai.py` compiles with, and after, the int8 products."""

LAYERS = r"""
namespace {

constexpr int BLOCK = 64;   // slots that attention looks at together

struct Shape { int64_t S, B, T, D, H, G, size, F, P, K; float eps, scaling; };

// [S, 2, B, H, slots, size] with the strides of the first three
struct Memory { uint16_t* data; int64_t layer, pair, batch; };

void normalise(const float* x, const float* weight, int64_t D, float eps, int64_t m, float* scratch, Levels out) {
    float square = 0;
    for (int64_t i = 0; i < D; i++) square += x[i] * x[i];
    float inverse = 1.0f / std::sqrt(square / D + eps);
    for (int64_t i = 0; i < D; i++) scratch[i] = x[i] * inverse * weight[i];
    quantise(scratch, D, m, out);
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

}  // namespace

// plan: per layer the addresses of norm, (weight, scale, sums) of queries with keys and values, of the output, norm, and those of
// gate with up, and of down. x [B T, D] is changed in place. prompt and memory are written at `slot`, one of them.
extern "C" void follow_layers(const int64_t* plan, const Shape* shape, float* x, const Memory* prompt, const Memory* memory,
                              int64_t write_prompt, const int64_t* slot, const uint8_t* seen, const float* cos, const float* sin,
                              int64_t threads) {
    const auto [S, B, T, D, H, G, size, F, P, K, eps, scaling] = *shape;
    const int64_t M = B * T, Q = T * G, heads = H * G, slots = P + K, total = (heads + 2 * H) * size;
    const int64_t wide = up_to(64, std::max({D, F, heads * size}));

    // Which slots any position of a row of the batch sees, as rows of the prompt and then of the memory, and what each position adds to
    // their scores.
    std::vector<std::vector<int32_t>> look(B);
    std::vector<std::vector<float>> masks(B);
    std::vector<int64_t> of_prompt(B);
    for (int64_t b = 0; b < B; b++) {
        std::vector<int64_t> which;
        for (int64_t s = 0; s < slots; s++)
            for (int64_t t = 0; t < T; t++)
                if (seen[(b * T + t) * slots + s]) { which.push_back(s); break; }
        for (int64_t s : which) { look[b].push_back(int32_t(s < P ? s : s - P)); of_prompt[b] += s < P; }
        for (int64_t t = 0; t < T; t++)
            for (int64_t s : which) masks[b].push_back(seen[(b * T + t) * slots + s] ? 0.0f : -INFINITY);
    }

    std::vector<float> joined(M * total), hidden(M * F), raised(M * F);
    const int64_t part = size + 2;  // of a query's attention: maximum, sum of weights, weighted values
    std::vector<float> parts(threads * M * heads * part);

    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        std::vector<Level> levels(M * wide);
        std::vector<float> scales(M), scratch(std::max(wide, heads * size)), query(2 * Q * size), scores(Q * BLOCK), sight(Q * part);
        int64_t first, last;
        Levels q{levels.data(), scales.data(), wide};
        for (int64_t layer = 0; layer < S; layer++) {
            const int64_t* at = plan + layer * 14;
            auto floats = [&](int i) { return reinterpret_cast<const float*>(at[i]); };
            const Matrix in = Matrix::at(at + 1), out = Matrix::at(at + 4), gate_up = Matrix::at(at + 8), down = Matrix::at(at + 11);

            for (int64_t m = 0; m < M; m++) normalise(x + m * D, floats(0), D, eps, m, scratch.data(), q);
            share(total, thread, n, first, last);
            multiply(q, M, in, first, last, D, [&](int64_t m, int64_t r, float value) { joined[m * total + r] = value; });
            #pragma omp barrier

            for (int64_t b = 0; b < B; b++) {
                const auto& list = look[b];
                const int64_t begin = list.size() * thread / n, end = list.size() * (thread + 1) / n, border = of_prompt[b];
                uint16_t* far = prompt->data + layer * prompt->layer + b * prompt->batch;
                uint16_t* near = memory->data + layer * memory->layer + b * memory->batch;
                const int64_t halves[2][2] = {{begin, std::min(end, border)}, {std::max(begin, border), end}};  // prompt, memory
                for (int64_t t = 0; t < T; t++) {  // who looks at a slot writes it before
                    const int64_t m = b * T + t, s = slot[m];
                    const auto [from, to_] = halves[!write_prompt];
                    if (from >= to_ || s < list[from] || s > list[to_ - 1]) continue;
                    const Memory* where = write_prompt ? prompt : memory;
                    uint16_t* to = write_prompt ? far : near;
                    const float* keys = joined.data() + m * total + heads * size;
                    for (int64_t h = 0; h < H; h++) {
                        uint16_t* place = to + (h * (write_prompt ? P : K) + s) * size;
                        rotate(keys + h * size, cos + (m * 2 + 1) * size, sin + (m * 2 + 1) * size, size, 1.0f, scratch.data());
                        for (int64_t i = 0; i < size; i++) {
                            place[i] = to_bf16(scratch[i]);
                            place[where->pair + i] = to_bf16(keys[(H + h) * size + i]);
                        }
                    }
                }
                for (int64_t h = 0; h < H; h++) {
                    for (int64_t t = 0; t < T; t++)
                        for (int64_t g = 0; g < G; g++)
                            for (int64_t way = 0; way < 2; way++) {  // as the prompt is seen, and as the memory is
                                const int64_t m = b * T + t, turn = (m * 2 + way) * size;
                                float* to = query.data() + (way * Q + t * G + g) * size;
                                rotate(joined.data() + m * total + (h * G + g) * size, cos + turn, sin + turn, size, scaling, to);
                                for (int64_t i = 0; i < size; i++) to[i] = from_bf16(to_bf16(to[i]));
                            }
                    for (int64_t i = 0; i < Q * part; i++) sight[i] = i % part ? 0.0f : -INFINITY;
                    for (int way = 0; way < 2; way++) {
                        const Memory* where = way ? memory : prompt;
                        const uint16_t* keys = way ? near + h * K * size : far + h * P * size;
                        for (int64_t start = halves[way][0]; start < halves[way][1]; start += BLOCK) {
                            const int64_t count = std::min<int64_t>(BLOCK, halves[way][1] - start);
                            look_at(query.data() + way * Q * size, Q, G, keys, keys + where->pair, list.data() + start,
                                    masks[b].data() + start, int64_t(list.size()), count, size, scores.data(), sight.data());
                        }
                    }
                    for (int64_t t = 0; t < T; t++)
                        std::memcpy(parts.data() + ((thread * M + b * T + t) * heads + h * G) * part, sight.data() + t * G * part,
                                    G * part * sizeof(float));
                }
            }
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                for (int64_t h = 0; h < heads; h++) {
                    float top = -INFINITY, sum = 0, *y = scratch.data() + h * size;
                    for (int i = 0; i < n; i++) top = std::max(top, parts[((i * M + m) * heads + h) * part]);
                    std::fill(y, y + size, 0.0f);
                    for (int i = 0; i < n; i++) {
                        const float* from = parts.data() + ((i * M + m) * heads + h) * part;
                        if (from[0] == -INFINITY) continue;
                        const float share_of = exp_of(from[0] - top);
                        sum += share_of * from[1];
                        for (int64_t j = 0; j < size; j++) y[j] += share_of * from[2 + j];
                    }
                    for (int64_t j = 0; j < size; j++) y[j] /= sum;
                }
                quantise(scratch.data(), heads * size, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, out, first, last, heads * size, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) normalise(x + m * D, floats(7), D, eps, m, scratch.data(), q);
            share(F, thread, n, first, last);
            multiply(q, M, gate_up, first, last, D, [&](int64_t m, int64_t r, float value) { hidden[m * F + r] = value; });
            const Matrix up{gate_up.weight + F * D, gate_up.scale + F, gate_up.sums + F};
            multiply(q, M, up, first, last, D, [&](int64_t m, int64_t r, float value) { raised[m * F + r] = value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                const float *gate = hidden.data() + m * F, *value = raised.data() + m * F;
                for (int64_t i = 0; i < F; i++) scratch[i] = gate[i] * sigmoid(gate[i]) * value[i];
                quantise(scratch.data(), F, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, down, first, last, F, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier
        }
    }
}

// Residual MLPs whose norm is steered (AdaLN). plan: per block the (weight, scale, sums, bias) of what steers, of the MLP's first and of
// its second matrix. x [M, D] is changed in place; condition [M, D].
extern "C" void follow_steered(const int64_t* plan, int64_t blocks, float* x, const float* condition, int64_t M, int64_t D, float eps,
                               int64_t threads) {
    std::vector<float> steering(blocks * M * 3 * D), hidden(M * D);
    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        const int64_t wide = up_to(64, D);
        std::vector<Level> levels(M * wide);
        std::vector<float> scales(M), scratch(wide);
        Levels q{levels.data(), scales.data(), wide};
        auto silu = [&](const float* from, int64_t m) {
            for (int64_t i = 0; i < D; i++) scratch[i] = from[m * D + i] * sigmoid(from[m * D + i]);
            quantise(scratch.data(), D, m, q);
        };
        auto matrix = [&](int64_t block, int i) { return Matrix::at(plan + block * 12 + i * 4); };
        auto bias = [&](int64_t block, int i) { return reinterpret_cast<const float*>(plan[block * 12 + i * 4 + 3]); };
        int64_t first, last;

        for (int64_t m = 0; m < M; m++) silu(condition, m);
        share(3 * D, thread, n, first, last);
        for (int64_t block = 0; block < blocks; block++)
            multiply(q, M, matrix(block, 0), first, last, D, [&](int64_t m, int64_t r, float value) {
                steering[(block * M + m) * 3 * D + r] = value + bias(block, 0)[r];
            });
        share(D, thread, n, first, last);
        for (int64_t block = 0; block < blocks; block++) {
            #pragma omp barrier
            for (int64_t m = 0; m < M; m++) {
                const float *shift = steering.data() + (block * M + m) * 3 * D, *scale = shift + D;
                standardise(x + m * D, D, eps, scratch.data());
                for (int64_t i = 0; i < D; i++) scratch[i] = scratch[i] * (1.0f + scale[i]) + shift[i];
                quantise(scratch.data(), D, m, q);
            }
            multiply(q, M, matrix(block, 1), first, last, D, [&](int64_t m, int64_t r, float value) {
                hidden[m * D + r] = value + bias(block, 1)[r];
            });
            #pragma omp barrier
            for (int64_t m = 0; m < M; m++) silu(hidden.data(), m);
            multiply(q, M, matrix(block, 2), first, last, D, [&](int64_t m, int64_t r, float value) {
                x[m * D + r] += steering[(block * M + m) * 3 * D + 2 * D + r] * (value + bias(block, 2)[r]);
            });
        }
    }
}
"""
