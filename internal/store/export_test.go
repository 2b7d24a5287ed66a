package store

// NextForSQL is the query by which agents get their work.
const NextForSQL = nextFor
