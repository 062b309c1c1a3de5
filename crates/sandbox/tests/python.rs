//! Cells in Python in a real container.

mod support;

use support::{leased, printed, python, said};

#[tokio::test(flavor = "multi_thread")]
async fn names_live_from_cell_to_cell() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(printed(&mut lease, "x = 41\nprint('set')").await, "set\n");
    assert_eq!(printed(&mut lease, "x += 1; print(x)").await, "42\n");
    let output = said(&python(&mut lease, "1/0").await);
    println!("{output:?}");
    drop(lease);
    sandbox.close().await;
}
