"""The assembly of depthwise convolution with packed pairs (Armv7E-M and Armv8-M with the DSP extension).

The arithmetic is that of dsp_convolution_code.py: words of two neighbouring values, X[i] = x[2i] + x[2i+1] z and
W[j] = w[2j+1] + w[2j] z with z = 2**21, so that one SMLAL does four multiply-accumulates and its 64-bit sum holds

    L (a part of y[2m-1])   M (y[2m], complete)   H (a part of y[2m+1] = H(m) + L(m+1))

As a filter has one input channel only, three more things pay:

- Weights are doubled in the words, and the bias of odd outputs starts in the field H, so that sums come out as SMMLAR
  wants them, 2 * a (requantize.py): five instructions for two of them. It needs 256 * sum|w| < 2**20 and a bias that
  fits; else the code is *wide*: plain weights, bias added and doubled at the end, six instructions.
- Four channels at a time are gathered from the map, a word per pixel, into four *planes* of packed pairs. All filters
  of a channel (depth multiplier) read its plane.
- What a filter needs in its loop lies together in a *record* of words in the scratch or in flash: where the
  accumulators start (for LDM), then shift, bias, multiplier, offset, then the weights of all lines.

Five functions are generated: `build_line_gather` and `build_row_gather` (dsp_depthwise_gather_code.py) the planes,
`build_record_code` (dsp_depthwise_record_code.py) the records, `build_line_code` (dsp_depthwise_line_code.py) the
outputs of long lines, `build_plane_code` (dsp_depthwise_plane_code.py) those of a map's rows. Here is what they share.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.codegen.assembly import AssemblyBuilder, at

BLOCK_PAIRS = 3
BLOCK_OUTPUTS = 2 * BLOCK_PAIRS
LARGEST_PLANE_BYTES = 1020  # what STRD can address
CONSTANT_WORDS = 4  # shift, bias, multiplier, offset
RUN_PLANE = 28  # field of C's ep_dsp_run: a plane's bytes; then its output channels
RUN_PROTOTYPE = "void {}(const ep_dsp_run *run, int32_t output, const uint32_t *record, int32_t count, int32_t x_bytes)"
FURTHEST_DOUBLE = 1020  # of LDRD
FURTHEST = 4095  # of LDR, STRB


@dataclass(frozen=True)
class Finish:
    """How sums become outputs.

    wide: see the head. ties: negative ties are to be corrected. act_min, act_max: of the output.
    """

    wide: bool
    ties: bool
    act_min: int
    act_max: int

    @property
    def clamps(self) -> bool:
        return (self.act_min, self.act_max) != (-128, 127)

    @property
    def suffix(self) -> str:
        clamp = f"c{self.act_min + 128}_{self.act_max + 128}" if self.clamps else ""
        return ("w" if self.wide else "") + ("t" if self.ties else "") + clamp


@dataclass(frozen=True)
class TapLine:
    """One line of taps that an output sums: words of x from `offset` bytes on; `taps` of the kernel, two to a word."""

    offset: int
    taps: int

    @property
    def words(self) -> int:
        return -(-self.taps // 2)


def count_line_bytes(lines: tuple[TapLine, ...]) -> str:
    """The lines in a function's name."""
    return "_".join(f"{line.offset}x{line.taps}" for line in lines)


class Outputs:
    """From accumulators to stored outputs. shift, bias, multiplier, offset: the registers of the constants."""

    def __init__(self, code: AssemblyBuilder, finish: Finish, constants: tuple[str, str, str, str]) -> None:
        self.code, self.finish = code, finish
        self.shift, self.bias, self.multiplier, self.offset = constants

    def take_even(self, low: str, high: str) -> None:
        """low = 2 * a of the even output."""
        self.code("lsrs", low, low, "#21")
        self.code("bfi", low, high, "#11", "#10")
        self.code("add", low, self.bias, f"{low}, lsl #1" if self.finish.wide else low)

    def take_odd(self, low: str, high: str) -> None:
        """high = 2 * a of the odd output; low: the field L of the next pair."""
        self.code("add", high, low, f"{high}, asr #10")
        if self.finish.wide:
            self.code("add", high, self.bias, f"{high}, lsl #1")

    def rescale(self, value: str, free: str) -> None:
        """value = the stored output: rescale_bytes of code."""
        code, finish = self.code, self.finish
        if finish.ties:
            code("smmlar", free, value, self.multiplier, self.offset)
            code("add", value, free, f"{value}, asr #31")
        else:
            code("smmlar", value, value, self.multiplier, self.offset)
        code("asr.w", value, value, self.shift)
        if not finish.clamps:
            code("ssat", value, "#8", value)
            return
        for condition, limit in (("lt", finish.act_min), ("gt", finish.act_max)):
            if limit >= 0:
                code("cmp.w", value, f"#{limit}")
                code("it", condition)
                code(f"mov{condition}.w", value, f"#{limit}")
            else:
                code("cmn.w", value, f"#{-limit}")
                code("it", condition)
                code(f"mvn{condition}.w", value, f"#{~limit}")

    @property
    def rescale_bytes(self) -> int:
        return 8 + 4 * self.finish.ties + (20 if self.finish.clamps else 4)


def load_words(code: AssemblyBuilder, into: tuple[str, ...], base: str, offset: int) -> None:
    """Neighbouring words, two at a time where LDRD reaches."""
    place = 0
    while place < len(into):
        here = offset + 4 * place
        if place + 1 < len(into) and here <= FURTHEST_DOUBLE:
            code("ldrd", into[place], into[place + 1], at(base, here))
            place += 2
        else:
            code("ldr.w", into[place], at(base, here))
            place += 1


def step_plane(code: AssemblyBuilder, x: str, of_plane: str, plane_bytes: str, multiplier: str) -> None:
    """x goes on to the next plane when the last output channel of its plane has been computed; r7, r8 free.

    of_plane, plane_bytes, multiplier: where they lie in the frame.
    """
    code("ldr", "r8", of_plane)
    code("subs", "r8", "r8", "#1")
    code("ittt", "eq")
    code("ldreq", "r7", plane_bytes)
    code("addeq", x, x, "r7")
    code("ldreq", "r8", multiplier)
    code("str", "r8", of_plane)
