// Tensor-core instructions of a warp. Layouts of the fragments: PTX ISA, "Matrix Fragments for
// mma.m16n8k8" (tf32), "mma.m16n8k16" (bf16, f16), and "ldmatrix".
#include <cstring>
#include "machine.h"

namespace emulated {
namespace {
float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float half_as_float(uint16_t bits) {
    uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent) return as_float(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = float(fraction) / 16777216.0f;
    return sign ? -magnitude : magnitude;
}

// Element `i` of a fragment: a register each for tf32, of which the GPU ignores the low 13 bits,
// or two to a register, the first in the low half.
float element(MatrixKind kind, const uint32_t* registers, unsigned i) {
    if (kind == MatrixKind::Tf32_16x8x8) return as_float(registers[i] & ~0x1fffu);
    uint16_t bits = uint16_t(registers[i / 2] >> (i % 2 * 16));
    return kind == MatrixKind::Half_16x8x16 ? half_as_float(bits) : as_float(uint32_t(bits) << 16);
}
}  // namespace

void multiply(Machine& machine, unsigned warp) {
    const Fiber* lanes = &machine.fibers[warp * 32];
    MatrixKind kind = lanes[0].operands->kind;
    bool wide = kind != MatrixKind::Tf32_16x8x8;  // inner length 16 instead of 8
    float a[16][16] = {}, b[16][8] = {};
    for (unsigned lane = 0; lane < 32; lane++) {
        const MatrixOperands& own = *lanes[lane].operands;
        if (own.kind != kind) fail("uses another tensor-core instruction than its warp");
        unsigned group = lane / 4, within = lane % 4;
        for (unsigned i = 0; i < (wide ? 8u : 4u); i++) {
            unsigned row = wide ? group + (i >> 1 & 1) * 8 : group + (i & 1) * 8;
            unsigned column = wide ? within * 2 + (i & 1) + (i >> 2) * 8 : within + (i >> 1) * 4;
            a[row][column] = element(kind, own.a, i);
        }
        for (unsigned i = 0; i < (wide ? 4u : 2u); i++) {
            unsigned row = wide ? within * 2 + (i & 1) + (i >> 1) * 8 : within + i * 4;
            b[row][group] = element(kind, own.b, i);
        }
    }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = lane / 4 + (i >> 1) * 8, column = lane % 4 * 2 + (i & 1);
            float sum = lanes[lane].operands->d[i];
            for (unsigned k = 0; k < (wide ? 16u : 8u); k++) sum += a[row][k] * b[k][column];
            lanes[lane].operands->d[i] = sum;
        }
}

void load_matrices(Machine& machine, unsigned warp) {
    const Fiber* lanes = &machine.fibers[warp * 32];
    const MatrixOperands& first = *lanes[0].operands;
    for (unsigned lane = 0; lane < 32; lane++) {
        const MatrixOperands& own = *lanes[lane].operands;
        if (own.kind != first.kind || own.matrices != first.matrices) fail("uses another tensor-core instruction than its warp");
        if (lane < own.matrices * 8) {
            if (uintptr_t(own.row) % 16) fail("loads a matrix row from an address that is no multiple of 16");
            if (machine.races.on) machine.races.access(machine, own.row, 16, false, false, __builtin_return_address(0));
        }
    }
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned m = 0; m < first.matrices; m++) {
            uint16_t pair[2];
            for (unsigned i = 0; i < 2; i++) {
                unsigned row = lane / 4, column = lane % 4 * 2 + i;
                if (first.kind == MatrixKind::LoadTransposed) std::swap(row, column);
                const uint16_t* values = static_cast<const uint16_t*>(lanes[m * 8 + row].operands->row);
                pair[i] = values[column];
            }
            lanes[lane].operands->loaded[m] = uint32_t(pair[0]) | uint32_t(pair[1]) << 16;
        }
}

}  // namespace emulated
