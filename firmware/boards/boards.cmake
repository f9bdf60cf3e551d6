# The firmware image of one board: the target `app`, from boards/${EDGELOOP_BOARD}/board.cmake.
include(${CMAKE_CURRENT_LIST_DIR}/../kernel.cmake)

# Sources, definitions and link options that every Cortex-M board shares.
# add_cortex_m_app(port cpu_flags board_sources...)
function(add_cortex_m_app port cpu_flags)
    set(folder "${CMAKE_CURRENT_SOURCE_DIR}/boards")
    set(machine ${cpu_flags} -mthumb --specs=picolibc.specs -Os -g -ffunction-sections -fdata-sections)
    add_compile_options(${machine})
    add_link_options(${machine} -nostartfiles -Wl,--gc-sections
        -L${folder}/cortex_m -T${folder}/${EDGELOOP_BOARD}/link.ld)
    list(TRANSFORM ARGN PREPEND "${folder}/${EDGELOOP_BOARD}/")
    set(include_folders ${folder}/${EDGELOOP_BOARD} ${folder}/cortex_m ${folder} ${CMAKE_CURRENT_SOURCE_DIR})
    include_directories(${include_folders})

    add_kernel(${port} ${folder}/${EDGELOOP_BOARD})
    add_executable(app ${ARGN} ${APP_SOURCES}
        ${folder}/cortex_m/startup.c
        ${folder}/cortex_m/retained.c
        ${folder}/cortex_m/uart_rings.c
        ${folder}/cortex_m/tmp105.c
        ${folder}/cortex_m/freertos_hooks.c)
    target_link_libraries(app PRIVATE kernel)
    set_target_properties(app PROPERTIES
        LINK_DEPENDS "${folder}/${EDGELOOP_BOARD}/link.ld;${folder}/cortex_m/sections.ld")
    add_custom_command(TARGET app POST_BUILD COMMAND arm-none-eabi-size $<TARGET_FILE:app>)
endfunction()

include(${CMAKE_CURRENT_LIST_DIR}/${EDGELOOP_BOARD}/board.cmake)
