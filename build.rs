//! Sets the linker options that Node needs to load the addon.

fn main() {
    napi_build::setup();
}
