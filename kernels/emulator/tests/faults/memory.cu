// Planted faults: accesses outside memory, or to what holds no value.

extern "C" __global__ void off_by_one_store(float* y, int count) {
    int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i <= count) y[i] = 1.0f; // FAULT 1
}

extern "C" __global__ void reads_before_start(const float* x, float* y) {
    int i = int(threadIdx.x);
    y[i] = x[i - 1]; // FAULT 2
}

extern "C" __global__ void reads_unwritten_shared(const float* x, float* y) {
    __shared__ float tile[64];
    if (threadIdx.x < 63) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x]; // FAULT 3
}

// The same through a template, whose shared variables the compiler treats differently.
template <typename T>
__device__ T last_of_tile(T value) {
    __shared__ T tile[64];
    if (threadIdx.x < 63) tile[threadIdx.x] = value;
    __syncthreads();
    return tile[threadIdx.x]; // FAULT 4
}
extern "C" __global__ void reads_unwritten_shared_of_template(const float* x, float* y) {
    y[threadIdx.x] = last_of_tile<float>(x[threadIdx.x]);
}

extern "C" __global__ void overruns_dynamic_shared(float* y) {
    EXTERN_SHARED(float, tile);
    tile[threadIdx.x + 1] = 1.0f; // FAULT 5
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + 1];
}

extern "C" __global__ void overruns_static_shared(float* y) {
    __shared__ float tile[32];
    __shared__ float other[32];
    if (threadIdx.x < 32) other[threadIdx.x] = 0.0f;
    tile[threadIdx.x] = 1.0f; // FAULT 6
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x & 31] + other[threadIdx.x & 31];
}

extern "C" __global__ void misaligned_vector(const float* x, float* y) {
    float4 v = *reinterpret_cast<const float4*>(x + 1); // FAULT 7
    y[threadIdx.x] = v.x + v.w;
}

extern "C" __global__ void divides_by_zero(float* y, int zero) {
    y[threadIdx.x] = float(int(threadIdx.x) / zero); // FAULT 8
}

extern "C" __global__ void forgets_an_element(float* y) {
    if (threadIdx.x != 5) y[threadIdx.x] = 1.0f;
}

// Without a wait the copy never lands; with a wait but no barrier, only the own part is seen.
extern "C" __global__ void missing_copy_wait(const float* x, float* y) {
    __shared__ float tile[64];
    copy_async_4(&tile[threadIdx.x], &x[threadIdx.x]); // FAULT 9
    copy_async_commit();
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void waits_for_too_few_copies(const float* x, float* y) {
    __shared__ float tile[2][64];
    for (int stage = 0; stage < 2; stage++) {
        copy_async_4(&tile[stage][threadIdx.x], &x[threadIdx.x]); // FAULT 11
        copy_async_commit();
    }
    copy_async_wait<1>();
    __syncthreads();
    y[threadIdx.x] = tile[1][63 - threadIdx.x]; // FAULT 10
    copy_async_wait<0>();
}
