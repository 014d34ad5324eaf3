# Run by CMake before it configures llama-cpp-python; see build.py.
#
# A row of a batch asks of every cell of a shared KV cache whether it may look at it, one cell
# after another, for every head of every layer. With sixteen streams fifteen of sixteen cells are
# somebody else's, and asking takes a tenth of a step, of long contexts more. Here the answer
# "no" is read for four cells at once. What is computed stays the same, to the last bit.
#
# A release that has another loop is left as it is, and CMake says so.

set(source "${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/ggml/src/ggml-cpu/ops.cpp")
set(loop "ic = ic_start; ic < ic_end; ++ic) {")
set(mark "penstock: masked cells are passed four at a time")
set(pass [==[

#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            static const char mark[] __attribute__((used)) = "MARK";
            const uint16_t minus_infinity = 0xFC00; // as half precision has it
            if (mp && mp[ic] == minus_infinity) {
                for (++ic; ic + 4 <= ic_end; ic += 4) {
                    uint64_t others;
                    memcpy(&others, mp + ic, sizeof(others));
                    others ^= 0xFC00FC00FC00FC00ull;
                    if (others) {
                        ic += __builtin_ctzll(others) / 16;
                        break;
                    }
                }
                while (ic < ic_end && mp[ic] == minus_infinity) {
                    ++ic;
                }
                if (ic >= ic_end) {
                    break;
                }
            }
#endif]==])
string(REPLACE "MARK" "${mark}" pass "${pass}")

file(READ "${source}" text)
string(REPLACE "${loop}" "" without "${text}")
string(LENGTH "${text}" before)
string(LENGTH "${without}" after)
string(LENGTH "${loop}" once)
math(EXPR gone "${before} - ${after}")
string(FIND "${text}" "${mark}" marked)
if(marked GREATER -1)
  message(STATUS "penstock: the attention of llama.cpp passes masked cells already")
elseif(gone EQUAL once)
  string(REPLACE "${loop}" "${loop}${pass}" text "${text}")
  file(WRITE "${source}" "${text}")
  message(STATUS "penstock: the attention of llama.cpp passes masked cells four at a time")
else()
  message(WARNING "penstock: the attention of llama.cpp is another one and stays as it is")
endif()
