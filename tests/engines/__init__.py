"""What any engine must do, and what ours does beyond it."""
