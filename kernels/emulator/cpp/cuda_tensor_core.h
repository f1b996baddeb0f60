// The tensor-core and asynchronous-copy wrappers of common.cuh, as collective operations of a warp. Fragment
// layouts: PTX ISA 8.5, 9.7.14.5 "Matrix multiply-accumulate operation using mma instruction".
#pragma once

// f32 to tf32 as cvt.rna does: 10 bits of mantissa, to the nearest, ties away from zero.
CROSSFIX_INLINE uint32_t to_tf32(float value) {
    uint32_t bits = __float_as_uint(value);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}
CROSSFIX_INLINE void crossfix_mma(emulated::MatrixKind kind, float* d, const uint32_t* a, const uint32_t* b, emulated::Place place) {
    emulated::MatrixOperands operands{kind, d, a, b, nullptr, nullptr, 0};
    emulated::matrix(operands, place);
}
CROSSFIX_INLINE void mma_tf32_16x8x8(float* d, const uint32_t* a, const uint32_t* b) {
    crossfix_mma(emulated::MatrixKind::Tf32_16x8x8, d, a, b, CROSSFIX_HERE);
}
CROSSFIX_INLINE void mma_bf16_16x8x16(float* d, const uint32_t* a, const uint32_t* b) {
    crossfix_mma(emulated::MatrixKind::Bf16_16x8x16, d, a, b, CROSSFIX_HERE);
}
CROSSFIX_INLINE void mma_half_16x8x16(float* d, const uint32_t* a, const uint32_t* b) {
    crossfix_mma(emulated::MatrixKind::Half_16x8x16, d, a, b, CROSSFIX_HERE);
}
// ldmatrix: lane 8 i + r points at row r of matrix i; register i holds two neighbours of it.
CROSSFIX_INLINE void crossfix_load(emulated::MatrixKind kind, uint32_t* registers, const void* row, unsigned matrices, emulated::Place place) {
    emulated::MatrixOperands operands{kind, nullptr, nullptr, nullptr, registers, row, matrices};
    emulated::matrix(operands, place);
}
CROSSFIX_INLINE void ldmatrix_x4(uint32_t* registers, const void* row) {
    crossfix_load(emulated::MatrixKind::Load, registers, row, 4, CROSSFIX_HERE);
}
CROSSFIX_INLINE void ldmatrix_x2(uint32_t* registers, const void* row) {
    crossfix_load(emulated::MatrixKind::Load, registers, row, 2, CROSSFIX_HERE);
}
CROSSFIX_INLINE void ldmatrix_x4_transposed(uint32_t* registers, const void* row) {
    crossfix_load(emulated::MatrixKind::LoadTransposed, registers, row, 4, CROSSFIX_HERE);
}
CROSSFIX_INLINE void ldmatrix_x2_transposed(uint32_t* registers, const void* row) {
    crossfix_load(emulated::MatrixKind::LoadTransposed, registers, row, 2, CROSSFIX_HERE);
}
// cp.async: complete when its group has been waited for; visible to other threads after a barrier.
#define copy_async_4(shared, global) (emulated::copy_async((shared), (global), 4, 4, CROSSFIX_HERE))
#define copy_async_8(shared, global) (emulated::copy_async((shared), (global), 8, 8, CROSSFIX_HERE))
#define copy_async_16(shared, global) (emulated::copy_async((shared), (global), 16, 16, CROSSFIX_HERE))
#define copy_async_4_or_zero(shared, global, valid) (emulated::copy_async((shared), (global), 4, (valid) ? 4 : 0, CROSSFIX_HERE))
#define copy_async_16_or_zero(shared, global, valid) (emulated::copy_async((shared), (global), 16, (valid) ? 16 : 0, CROSSFIX_HERE))
CROSSFIX_INLINE void copy_async_commit() { emulated::copy_async_commit(); }
template <int GROUPS_IN_FLIGHT>
CROSSFIX_INLINE void copy_async_wait() { emulated::copy_async_wait(GROUPS_IN_FLIGHT); }
