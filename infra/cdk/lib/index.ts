// What a stack imports: the construct and its settings.
export * from './siltstone-table';
