# What every Cortex-M board's CMakeLists.txt shares.
include(${CMAKE_SOURCE_DIR}/kernel.cmake)
include(${CMAKE_SOURCE_DIR}/app/app.cmake)

# add_cortex_m_app(kernel_port board_sources...): the board's folder holds FreeRTOSConfig.h and link.ld.
function(add_cortex_m_app port)
    set(common "${CMAKE_SOURCE_DIR}/boards/cortex_m")
    add_kernel(${port} "${CMAKE_CURRENT_SOURCE_DIR}")
    target_include_directories(kernel PUBLIC "${CMAKE_SOURCE_DIR}/boards" "${common}")
    add_app(${ARGN}
        ${common}/startup.c
        ${common}/retained.c
        ${common}/uart_rings.c
        ${common}/tmp105.c
        ${common}/freertos_hooks.c)
    target_link_options(app PRIVATE
        -nostartfiles -Wl,--gc-sections -L${common} -T${CMAKE_CURRENT_SOURCE_DIR}/link.ld)
    set_target_properties(app PROPERTIES
        LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/link.ld;${common}/sections.ld")
    add_custom_command(TARGET app POST_BUILD COMMAND arm-none-eabi-size $<TARGET_FILE:app>)
endfunction()
