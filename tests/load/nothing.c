/* The least that can be run: linked statically, so that running it is nothing but the kernel's work. */
int main(void) { return 0; }
