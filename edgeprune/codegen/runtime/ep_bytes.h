/* Copying and filling bytes. SPDX-License-Identifier: 0BSD */
#ifndef EP_BYTES_H
#define EP_BYTES_H

#include "ep.h"

/* Copy `count` bytes; the two do not overlap, or are the same. */
void ep_copy_bytes(int8_t *to, const int8_t *from, int32_t count);

void ep_fill_bytes(int8_t *to, int32_t value, int32_t count);

#endif
