# Compiler settings and the helpers every room uses to declare its targets.
find_program(CCACHE ccache)
if(CCACHE)
  # Paths relative to the source folder, so that clones in different folders share objects.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.>)
endif()

set(SALAMANDER_WARNINGS -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers)
if(SALAMANDER_SANITIZER)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SALAMANDER_SANITIZER}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer> $<$<COMPILE_LANGUAGE:CXX>:-g>
                      $<$<COMPILE_LANGUAGE:CXX>:-O1>)
  add_link_options(-fsanitize=${SALAMANDER_SANITIZER})
endif()

# salamander_library(NAME SOURCES a.cc b.cc DEPS x y): a static library of one room.
function(salamander_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${SALAMANDER_WARNINGS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

# salamander_executable(NAME OUTPUT file-name SOURCES … DEPS …)
function(salamander_executable name)
  cmake_parse_arguments(ARG "" "OUTPUT" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${SALAMANDER_WARNINGS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  if(ARG_OUTPUT)
    set_target_properties(${name} PROPERTIES OUTPUT_NAME ${ARG_OUTPUT})
  endif()
endfunction()

set(SALAMANDER_TEST_ENVIRONMENT SALAMANDER_TEST_DATA=${CMAKE_SOURCE_DIR}/tests/data)
if(SALAMANDER_SANITIZER)
  # UCX's hooks into mmap and madvise also run while a thread ends, when ThreadSanitizer has already forgotten it.
  list(APPEND SALAMANDER_TEST_ENVIRONMENT UCX_MEM_MMAP_HOOK_MODE=none)
endif()

# What `make sanitize` runs: tests without other programs of the project.
add_custom_target(single_process_tests)

# salamander_test(NAME SOURCES … DEPS … [TIMEOUT seconds] [LABELS …]): a GoogleTest program, run by ctest as one test.
# Labels: unit (fast, in one process; also run under the sanitizers), cluster (starts processes), slow.
function(salamander_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(SALAMANDER_SANITIZER)
    math(EXPR ARG_TIMEOUT "5 * ${ARG_TIMEOUT}")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${SALAMANDER_WARNINGS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
                                           ENVIRONMENT "${SALAMANDER_TEST_ENVIRONMENT}")
  if("unit" IN_LIST ARG_LABELS OR "inprocess" IN_LIST ARG_LABELS)
    add_dependencies(single_process_tests ${name})
  endif()
endfunction()
