package api

// HeaderHolder is the request header by which an agent says who takes a job up,
// when it fetches the definition: an id that is its own, and stays so when it
// starts again. A service that knows it gives the job to no other.
const HeaderHolder = "Longshore-Holder"
