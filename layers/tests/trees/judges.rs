//! Other programs as judges: GNU tar reads what we write, and unpacks what we unpack; umoci unpacks the same rootfs.
