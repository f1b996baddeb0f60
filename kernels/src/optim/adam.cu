// Adam over many parameters in one launch, with the length of all gradients bounded.
#include "common.cuh"

#define TENSORS 64   // of one launch; what they need fits the 4 KiB of kernel parameters
#define CHUNK 8192   // elements of a block, which is one tensor's; a multiple of 4
#define FEW 8        // partial sums that one thread adds

struct AdamTensors {
    unsigned parameter[TENSORS][2]; // addresses, low half first
    unsigned gradient[TENSORS][2];
    unsigned first[TENSORS][2];
    unsigned second[TENSORS][2];
    unsigned count[TENSORS]; // elements
    unsigned slot[TENSORS];  // index among all parameters
    unsigned first_block[TENSORS]; // of each tensor; above all blocks where there is none
    unsigned first_partial;        // of the launch's blocks
    float weight_decay;
    float first_share;
    float second_share;
    float epsilon;
};

struct AdamNormParameters {
    unsigned count;     // parameters
    float most;         // the norm is bounded by this, where it is above 0
};

// Which tensor the block belongs to, and which elements of it.
struct Chunk {
    unsigned tensor, begin, end;
};

__device__ __forceinline__ Chunk chunk_of_block(const AdamTensors& p) {
    unsigned tensor = 0;
    for (unsigned step = TENSORS / 2; step > 0; step /= 2)
        if (p.first_block[tensor + step] <= blockIdx.x) tensor += step;
    const unsigned begin = (blockIdx.x - p.first_block[tensor]) * CHUNK;
    return {tensor, begin, min(begin + CHUNK, p.count[tensor])};
}

// partial[block] = sum of the squares of the gradient's elements that the block sees, in double as
// on the CPU; ranges[slot] = the tensor's first of them and their number.
extern "C" __global__ void __launch_bounds__(256) adam_squares(double* partial, uint2* ranges, AdamTensors p) {
    const Chunk chunk = chunk_of_block(p);
    const float* gradient = buffer_at(p.gradient[chunk.tensor]);
    double sum = 0.0;
    const auto add = [&](float value) { sum += double(value) * value; };
#pragma unroll 4
    for (unsigned i = chunk.begin / 4 + threadIdx.x; i < chunk.end / 4; i += blockDim.x) {
        const float4 g = reinterpret_cast<const float4*>(gradient)[i];
        add(g.x), add(g.y), add(g.z), add(g.w);
    }
    for (unsigned i = chunk.end / 4 * 4 + threadIdx.x; i < chunk.end; i += blockDim.x) add(gradient[i]);
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    partial[p.first_partial + blockIdx.x] = sum;
    if (chunk.begin == 0) ranges[p.slot[chunk.tensor]] = make_uint2(p.first_partial + blockIdx.x, (p.count[chunk.tensor] + CHUNK - 1) / CHUNK);
}

// norm[0] = length of all gradients together, norm[1 + slot] = length of each; factor[0] = what
// bounds the first. One block; each parameter by itself, then in order, so that runs agree. A
// thread adds up a parameter of few partial sums, its warp one of many.
extern "C" __global__ void __launch_bounds__(1024) adam_norm(const double* partial, const uint2* ranges, float* norm, float* factor, AdamNormParameters p) {
    const unsigned lane = threadIdx.x & 31u;
    double total = 0.0;
    for (unsigned first = threadIdx.x - lane; first < p.count; first += blockDim.x) {
        const unsigned slot = first + lane;
        const uint2 range = slot < p.count ? ranges[slot] : make_uint2(0, 0);
        double sum = 0.0;
        if (range.y <= FEW) {
#pragma unroll
            for (unsigned i = 0; i < FEW; ++i) sum += i < range.y ? partial[range.x + i] : 0.0;
        }
        for (unsigned many = __ballot_sync(FULL_WARP, range.y > FEW); many != 0; many &= many - 1) {
            const int owner = __ffs(int(many)) - 1;
            const unsigned begin = __shfl_sync(FULL_WARP, range.x, owner), count = __shfl_sync(FULL_WARP, range.y, owner);
            double of_lane = 0.0;
#pragma unroll 4
            for (unsigned i = lane; i < count; i += 32) of_lane += partial[begin + i];
            of_lane = warp_sum(of_lane);
            if (int(lane) == owner) sum = of_lane;
        }
        if (slot >= p.count) continue;
        norm[1 + slot] = float(sqrt(sum));
        total += sum;
    }
    total = sqrt(block_sum(total));
    if (threadIdx.x == 0) {
        norm[0] = float(total);
        const double bound = p.most / (total + 1e-6);
        factor[0] = p.most > 0.0f && bound < 1.0 ? float(bound) : 1.0f;
    }
}

// What a step does to one element.
struct Step {
    float bound, size, root_correction, weight_decay, first_share, second_share, epsilon;

    __device__ __forceinline__ void apply(float& x, float gradient, float& m, float& v) const {
        const float g = bound * gradient + weight_decay * x;
        m += first_share * (g - m);
        v += second_share * (g * g - v);
        x -= size * m / (sqrtf(v) * root_correction + epsilon);
    }
};

// One step of each parameter; none when the norm is not finite, so that the last good values stay.
// coefficients[slot] = (length of the step, correction of the root).
extern "C" __global__ void __launch_bounds__(256) adam_update(const float* coefficients, const float* norm, const float* factor, AdamTensors p) {
    if (!(norm[0] < INFINITY)) return;
    const Chunk chunk = chunk_of_block(p);
    float* parameter = buffer_at(p.parameter[chunk.tensor]);
    const float* gradient = buffer_at(p.gradient[chunk.tensor]);
    float* first = buffer_at(p.first[chunk.tensor]);
    float* second = buffer_at(p.second[chunk.tensor]);
    const unsigned slot = p.slot[chunk.tensor];
    const Step step = {factor[0], coefficients[2 * slot], coefficients[2 * slot + 1], p.weight_decay, p.first_share, p.second_share, p.epsilon};
    for (unsigned i = chunk.begin / 4 + threadIdx.x; i < chunk.end / 4; i += blockDim.x) {
        Pack<4> x = load_pack<4>(parameter, i), m = load_pack<4>(first, i), v = load_pack<4>(second, i);
        const Pack<4> g = load_pack<4>(gradient, i);
#pragma unroll
        for (unsigned e = 0; e < 4; ++e) step.apply(x.at[e], g.at[e], m.at[e], v.at[e]);
        store_pack(first, i, m);
        store_pack(second, i, v);
        store_pack(parameter, i, x);
    }
    for (unsigned i = chunk.end / 4 * 4 + threadIdx.x; i < chunk.end; i += blockDim.x)
        step.apply(parameter[i], gradient[i], first[i], second[i]);
}
