/** The bodies that the Worker API takes and gives, by the names of its document. */
export {};
